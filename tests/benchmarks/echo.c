/* The floor: a server that does nothing but send whole frames back, over a Unix socket, with one thread and epoll.
 *
 * usage: echo SOCKET_PATH
 * A frame is four bytes of big-endian length, then that many bytes. Answers to all frames of one read leave in one
 * write, which is the best that any server of this protocol can do. Dies with its parent.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { BUFFER_BYTES = 1 << 18, EVENTS_MAX = 128 };

struct connection {
    int fd;
    size_t held; /* bytes of an unfinished frame, at the start of the buffer */
    unsigned char buffer[BUFFER_BYTES];
};

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int listen_on(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) {
        fprintf(stderr, "socket path too long\n");
        exit(1);
    }
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 512) < 0) fail(path);
    return fd;
}

/* Waits for room instead of keeping a queue: the generator always reads what it is owed. */
static int send_all(int fd, const unsigned char *bytes, size_t left) {
    while (left > 0) {
        ssize_t sent = send(fd, bytes, left, MSG_NOSIGNAL);
        if (sent < 0) return -1;
        bytes += sent;
        left -= (size_t)sent;
    }
    return 0;
}

static size_t whole_frames(const unsigned char *bytes, size_t length) {
    size_t at = 0;
    while (length - at >= 4) {
        size_t body = (size_t)bytes[at] << 24 | (size_t)bytes[at + 1] << 16 | (size_t)bytes[at + 2] << 8 | bytes[at + 3];
        if (body > BUFFER_BYTES - 4) return SIZE_MAX;
        if (length - at - 4 < body) break;
        at += 4 + body;
    }
    return at;
}

/* Returns 0 while the connection lives. */
static int serve(struct connection *c) {
    ssize_t got = recv(c->fd, c->buffer + c->held, BUFFER_BYTES - c->held, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (got <= 0) return -1;
    size_t length = c->held + (size_t)got;
    size_t whole = whole_frames(c->buffer, length);
    if (whole == SIZE_MAX || send_all(c->fd, c->buffer, whole) < 0) return -1;
    c->held = length - whole;
    memmove(c->buffer, c->buffer + whole, c->held);
    return 0;
}

static void accept_all(int listener, int poll) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0) return;
        struct connection *c = malloc(sizeof *c);
        if (c == NULL) fail("malloc");
        c->fd = fd;
        c->held = 0;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event) < 0) fail("epoll_ctl");
    }
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: echo SOCKET_PATH\n");
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    int listener = listen_on(argv[1]), poll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[EVENTS_MAX];
    if (poll < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event) < 0) fail("epoll");
    for (;;) {
        int ready = epoll_wait(poll, events, EVENTS_MAX, -1);
        if (ready < 0 && errno != EINTR) fail("epoll_wait");
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (c == NULL) {
                accept_all(listener, poll);
            } else if (serve(c) < 0) {
                close(c->fd);
                free(c);
            }
        }
    }
}
