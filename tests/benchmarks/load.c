/* A closed-loop load generator: C connections, D requests outstanding on each, a new one for every answer.
 *
 * usage: load SOCKET_PATH TEMPLATES CONNECTIONS DEPTH REQUESTS SECONDS
 * Stops after REQUESTS answers or SECONDS, whichever comes first, and prints one JSON line. One thread, so that it can
 * be pinned away from the server. It speaks length-prefixed frames, whose answers may come in any order and are told
 * apart by their `id`, and RESP (Redis), whose answers come in order.
 *
 * TEMPLATES (written by templates.py, all numbers u32 big-endian):
 *   protocol (0 frames, 1 RESP), steps per call, calls, then for each call and step:
 *   length, offset of the id (4 bytes, binary) or 0xffffffff, offset of the reservation (10 hex digits)
 *   or 0xffffffff, length of the text that a right answer contains, the request's bytes, that text.
 * A call is a sequence of steps under one reservation: reserve, then settle. Every answer is looked at: one that lacks
 * the expected text is counted as `wrong`, and the first such answer is shown.
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
#include <time.h>
#include <unistd.h>

enum { BUFFER_BYTES = 1 << 18, EVENTS_MAX = 128, STEPS_MAX = 4, SUB_BITS = 6, BUCKETS = 64 << SUB_BITS, HEX_DIGITS = 10 };
static const uint32_t NONE = 0xffffffff;

struct template {
    uint32_t length, id_at, reservation_at, expected_length;
    const unsigned char *bytes, *expected;
};

struct slot { /* one outstanding call */
    uint64_t sent_ns, reservation;
    uint32_t call, step;
};

struct connection {
    int fd, wants_room;
    size_t held, out_from, out_to;
    uint32_t first, outstanding; /* RESP: a ring of slots in the order of sending */
    struct slot *slots;
    uint32_t *ring;
    unsigned char in[BUFFER_BYTES], *out;
    size_t out_bytes;
};

static struct template *templates;
static uint32_t protocol, steps, calls, depth;
static uint64_t histogram[STEPS_MAX][BUCKETS], answered[STEPS_MAX], longest_ns[STEPS_MAX], total, wrong, next_call;
static uint64_t start_ns, end_ns, requests_max;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Buckets grow with the value and are at most 1/64 wide: percentiles are right to 1.6 %. */
static uint32_t bucket_of(uint64_t ns) {
    if (ns < (1u << (SUB_BITS + 1))) return (uint32_t)ns;
    uint32_t shift = 63 - (uint32_t)__builtin_clzll(ns) - SUB_BITS;
    uint32_t bucket = (shift << SUB_BITS) + (uint32_t)(ns >> shift);
    return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

static double bucket_us(uint32_t bucket) {
    if (bucket < (1u << (SUB_BITS + 1))) return bucket / 1000.0;
    uint32_t shift = (bucket >> SUB_BITS) - 1;
    return (double)(((uint64_t)(bucket - (shift << SUB_BITS)) << shift) + ((1ull << shift) >> 1)) / 1000.0;
}

static double percentile_us(uint32_t step, double part) {
    uint64_t seen = 0, wanted = (uint64_t)((double)answered[step] * part);
    for (uint32_t bucket = 0; bucket < BUCKETS; bucket++)
        if ((seen += histogram[step][bucket]) > wanted) return bucket_us(bucket);
    return 0;
}

static uint32_t u32(const unsigned char *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void read_templates(const char *path) {
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) < 0) fail(path);
    long size = ftell(file);
    unsigned char *bytes = malloc((size_t)size + 1), *at = bytes;
    rewind(file);
    if (bytes == NULL || fread(bytes, 1, (size_t)size, file) != (size_t)size) fail(path);
    fclose(file);
    protocol = u32(at), steps = u32(at + 4), calls = u32(at + 8), at += 12;
    if (steps < 1 || steps > STEPS_MAX || calls < 1) fprintf(stderr, "templates: bad head\n"), exit(2);
    templates = calloc((size_t)steps * calls, sizeof *templates);
    if (templates == NULL) fail("calloc");
    for (uint32_t i = 0; i < steps * calls; i++) {
        struct template *t = &templates[i];
        t->length = u32(at), t->id_at = u32(at + 4), t->reservation_at = u32(at + 8), t->expected_length = u32(at + 12);
        t->bytes = at + 16, t->expected = t->bytes + t->length;
        at += 16 + t->length + t->expected_length;
    }
}

static void put_request(struct connection *c, uint32_t index, uint64_t now) {
    struct slot *slot = &c->slots[index];
    const struct template *t = &templates[slot->call * steps + slot->step];
    if (c->out_to + t->length > c->out_bytes) {
        memmove(c->out, c->out + c->out_from, c->out_to - c->out_from);
        c->out_to -= c->out_from, c->out_from = 0;
        if (c->out_to + t->length > c->out_bytes) fprintf(stderr, "output buffer too small\n"), exit(1);
    }
    unsigned char *at = c->out + c->out_to;
    memcpy(at, t->bytes, t->length);
    if (t->id_at != NONE)
        for (int i = 0; i < 4; i++) at[t->id_at + (uint32_t)i] = (unsigned char)((index + 1) >> (24 - 8 * i));
    for (uint32_t i = 0; i < HEX_DIGITS && t->reservation_at != NONE; i++)
        at[t->reservation_at + i] = (unsigned char)"0123456789abcdef"[slot->reservation >> (4 * (HEX_DIGITS - 1 - i)) & 15];
    c->out_to += t->length;
    c->ring[(c->first + c->outstanding++) % depth] = index;
    slot->sent_ns = now;
}

static void begin_call(struct connection *c, uint32_t index, uint64_t now) {
    struct slot *slot = &c->slots[index];
    slot->reservation = next_call;
    slot->call = (uint32_t)(next_call++ % calls);
    slot->step = 0;
    put_request(c, index, now);
}

static void show_wrong(uint32_t step, const unsigned char *bytes, size_t length) {
    fprintf(stderr, "first wrong answer (step %u): ", step);
    for (size_t i = 0; i < length && i < 600; i++) fputc(bytes[i] >= ' ' && bytes[i] < 127 ? bytes[i] : '.', stderr);
    fputc('\n', stderr);
}

static void take_answer(struct connection *c, uint32_t index, const unsigned char *bytes, size_t length, uint64_t now) {
    struct slot *slot = &c->slots[index];
    const struct template *t = &templates[slot->call * steps + slot->step];
    uint64_t took_ns = now - slot->sent_ns;
    histogram[slot->step][bucket_of(took_ns)]++;
    answered[slot->step]++, total++;
    if (took_ns > longest_ns[slot->step]) longest_ns[slot->step] = took_ns;
    if (t->expected_length > 0 && memmem(bytes, length, t->expected, t->expected_length) == NULL && wrong++ == 0)
        show_wrong(slot->step, bytes, length);
    c->outstanding--;
    c->first = (c->first + 1) % depth;
    if (++slot->step < steps) /* a call that was begun is finished, so that nothing stays reserved */
        put_request(c, index, now);
    else if (total + (uint64_t)c->outstanding < requests_max && now < end_ns)
        begin_call(c, index, now);
}

/* The first `id` of an answer is the request's: our encoders write it before anything that could hold another. It is
 * the slot's number from 1, because 0 is the default and is left out. */
static uint32_t id_of(const unsigned char *body, size_t length) {
    const unsigned char *at = memmem(body, length, "\xa2id", 3);
    if (at == NULL) return NONE;
    at += 3;
    if (*at < 0x80) return *at;
    if (*at == 0xcc) return at[1];
    if (*at == 0xcd) return (uint32_t)at[1] << 8 | at[2];
    if (*at == 0xce) return u32(at + 1);
    return NONE;
}

/* Answers of Redis scripts here are integers, errors or short strings: one line each. */
static size_t one_answer(struct connection *c, const unsigned char *bytes, size_t length, uint64_t now) {
    if (protocol == 1) {
        const unsigned char *end = memmem(bytes, length, "\r\n", 2);
        if (end == NULL) return 0;
        take_answer(c, c->ring[c->first], bytes, (size_t)(end - bytes), now);
        return (size_t)(end - bytes) + 2;
    }
    if (length < 4 || length - 4 < u32(bytes)) return 0;
    uint32_t id = id_of(bytes + 4, u32(bytes));
    if (id < 1 || id > depth) fprintf(stderr, "an answer to nothing asked: id %u\n", id), exit(1);
    take_answer(c, id - 1, bytes + 4, u32(bytes), now);
    return 4 + (size_t)u32(bytes);
}

static void flush(struct connection *c, int poll) {
    while (c->out_from < c->out_to) {
        ssize_t sent = send(c->fd, c->out + c->out_from, c->out_to - c->out_from, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0 && errno != EAGAIN) fail("send");
        if (sent < 0) break;
        c->out_from += (size_t)sent;
    }
    if (c->out_from == c->out_to) c->out_from = c->out_to = 0;
    int wants_room = c->out_from < c->out_to;
    if (wants_room == c->wants_room) return;
    c->wants_room = wants_room;
    struct epoll_event event = {.events = EPOLLIN | (wants_room ? (uint32_t)EPOLLOUT : 0u), .data.ptr = c};
    if (epoll_ctl(poll, EPOLL_CTL_MOD, c->fd, &event) < 0) fail("epoll_ctl");
}

static void receive(struct connection *c, int poll) {
    ssize_t got = recv(c->fd, c->in + c->held, BUFFER_BYTES - c->held, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) fprintf(stderr, "the server closed a connection\n"), exit(1);
    uint64_t now = now_ns();
    size_t length = c->held + (size_t)got, at = 0, taken;
    while (at < length && (taken = one_answer(c, c->in + at, length - at, now)) > 0) at += taken;
    c->held = length - at;
    memmove(c->in, c->in + at, c->held);
    flush(c, poll);
}

static void open_connection(struct connection *c, const char *path, int poll) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0) fail(path);
    c->slots = calloc(depth, sizeof *c->slots);
    c->ring = calloc(depth, sizeof *c->ring);
    c->out_bytes = (size_t)depth * 4096 + 65536;
    c->out = malloc(c->out_bytes);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (c->slots == NULL || c->ring == NULL || c->out == NULL) fail("malloc");
    if (epoll_ctl(poll, EPOLL_CTL_ADD, c->fd, &event) < 0) fail("epoll_ctl");
}

static void report(uint64_t finished_ns) {
    double seconds = (double)(finished_ns - start_ns) / 1e9;
    printf("{\"answers\": %llu, \"wrong\": %llu, \"seconds\": %.6f, \"steps\": [", (unsigned long long)total,
           (unsigned long long)wrong, seconds);
    for (uint32_t step = 0; step < steps; step++)
        printf("%s{\"answers\": %llu, \"p50_us\": %.3f, \"p99_us\": %.3f, \"max_us\": %.3f}", step ? ", " : "",
               (unsigned long long)answered[step], percentile_us(step, 0.50), percentile_us(step, 0.99),
               (double)longest_ns[step] / 1000.0);
    printf("]}\n");
}

int main(int argc, char **argv) {
    if (argc != 7) {
        fprintf(stderr, "usage: load SOCKET_PATH TEMPLATES CONNECTIONS DEPTH REQUESTS SECONDS\n");
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    read_templates(argv[2]);
    uint32_t count = (uint32_t)strtoul(argv[3], NULL, 10);
    depth = (uint32_t)strtoul(argv[4], NULL, 10);
    requests_max = strtoull(argv[5], NULL, 10);
    double seconds = strtod(argv[6], NULL);
    if (count < 1 || depth < 1 || requests_max < 1 || !(seconds > 0)) fprintf(stderr, "bad argument\n"), exit(2);
    int poll = epoll_create1(EPOLL_CLOEXEC);
    struct connection *connections = calloc(count, sizeof *connections);
    if (poll < 0 || connections == NULL) fail("start");
    for (uint32_t i = 0; i < count; i++) open_connection(&connections[i], argv[1], poll);
    start_ns = now_ns();
    end_ns = start_ns + (uint64_t)(seconds * 1e9);
    uint64_t give_up_ns = end_ns + 10000000000u; /* the last answers may be late, but not for ever */
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t slot = 0; slot < depth; slot++) begin_call(&connections[i], slot, now_ns());
        flush(&connections[i], poll);
    }
    struct epoll_event events[EVENTS_MAX];
    uint32_t busy = count;
    while (busy > 0) {
        int ready = epoll_wait(poll, events, EVENTS_MAX, 1000);
        if (ready < 0 && errno != EINTR) fail("epoll_wait");
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) flush(c, poll);
            if (!(events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))) continue;
            receive(c, poll);
            if (c->outstanding == 0 && c->out_from == c->out_to && c->slots != NULL) {
                free(c->slots);
                c->slots = NULL;
                busy--;
            }
        }
        if (now_ns() > give_up_ns) fprintf(stderr, "answers are missing after 10 s\n"), exit(1);
    }
    report(now_ns());
    return 0;
}
