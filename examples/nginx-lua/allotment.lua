-- Asks the agent before a call is passed on, and says afterwards what the answer was.
local M = { socket = "unix:/run/allotment/http.sock" }

local BODY_BYTES_MAX = 200 * 1024 -- of larger requests the agent is told the size alone
local ENDS_BYTES = 64 * 1024 -- of an answer its first and last so many bytes are kept: there stands what it used
local TRIES = 5

local function send(method, path, headers, body)
  local lines = { method .. " " .. path .. " HTTP/1.1", "host: localhost", "content-length: " .. #body }
  for name, value in pairs(headers) do
    lines[#lines + 1] = name .. ": " .. value
  end
  local sent = table.concat(lines, "\r\n") .. "\r\n\r\n" .. body
  while true do
    local sock = ngx.socket.tcp()
    sock:settimeouts(1000, 3000, 3000) -- the agent decides within 2 seconds
    local ok, err = sock:connect(M.socket)
    if not ok then return nil, err end
    local line
    ok, err = sock:send(sent)
    if ok then line, err = sock:receive("*l") end
    if line then return sock, line end
    if sock:getreusedtimes() == 0 or err == "timeout" then return nil, err end
    -- Kept from before the agent was started again: the next one.
  end
end

-- One request to the agent; its status, headers and body, or nil and why there is no answer.
local function request(method, path, headers, body)
  local sock, line = send(method, path, headers, body)
  if not sock then return nil, line end
  local status, err = tonumber(line:match("^HTTP/1%.1 (%d%d%d)")), nil
  local said = {}
  repeat
    line, err = sock:receive("*l")
    if not line then return nil, err end
    local name, value = line:match("^([^:]+):%s*(.*)$")
    if name then said[name:lower()] = value end
  until line == ""
  local answer = ""
  local size = tonumber(said["content-length"]) or 0
  if size > 0 and method ~= "HEAD" then
    answer, err = sock:receive(size)
    if not answer then return nil, err end
  end
  if said["connection"] == "close" then sock:close() else sock:setkeepalive(60000, 64) end
  return status, said, answer
end

-- Before a call is passed on (access phase). `whose`: headers that say whose call it is.
function M.ask(whose)
  ngx.req.read_body()
  local body = ngx.req.get_body_data() or ""
  local size = #body
  local file = ngx.req.get_body_file()
  if file then
    local opened = io.open(file, "rb")
    size = opened:seek("end")
    opened:close()
  end
  if size > BODY_BYTES_MAX then body = "" end
  whose["x-allotment-body-bytes"] = size
  whose["content-type"] = ngx.var.http_content_type
  local status, said, answer = request(ngx.req.get_method(), "/v1/authz" .. ngx.var.request_uri, whose, body)
  if status == 200 then
    local name = said["x-allotment-reservation"]
    if name then
      whose["content-type"] = nil
      ngx.ctx.allotment = { name = name, whose = whose, size = 0,
        head = {}, head_bytes = 0, tail = {}, tail_bytes = 0 }
    end
    ngx.ctx.ratelimit = said["ratelimit"]
    ngx.header["RateLimit"] = said["ratelimit"]
    return
  end
  if not status then -- closed while no agent answers
    ngx.log(ngx.ERR, "the agent does not answer: ", said)
    status, answer = 503, '{"status": 503, "code": "no_decision", "error": {"code": "no_decision", '
      .. '"type": "no_decision", "message": "this host cannot tell whether the call is allowed"}}'
    said = { ["retry-after"] = "1" }
  end
  ngx.status = status
  ngx.header["Content-Type"] = said["content-type"] or "application/problem+json"
  for _, name in ipairs({ "Retry-After", "RateLimit", "X-Should-Retry" }) do
    ngx.header[name] = said[name:lower()]
  end
  ngx.print(answer)
  return ngx.exit(ngx.HTTP_OK)
end

-- A part of the answer (body filter): keeps its two ends.
function M.see()
  local call, part = ngx.ctx.allotment, ngx.arg[1]
  if not call then return end
  call.ended = call.ended or ngx.arg[2]
  if part == "" then return end
  call.size = call.size + #part
  local room = ENDS_BYTES - call.head_bytes
  if room > 0 then
    call.head[#call.head + 1] = part:sub(1, room)
    call.head_bytes = call.head_bytes + math.min(#part, room)
    part = part:sub(room + 1)
  end
  if part == "" then return end
  call.tail[#call.tail + 1] = part
  call.tail_bytes = call.tail_bytes + #part
  if call.tail_bytes > 2 * ENDS_BYTES then
    call.tail = { table.concat(call.tail):sub(-ENDS_BYTES) }
    call.tail_bytes = ENDS_BYTES
  end
end

local function say(premature, call, headers, try)
  local status, why = request("POST", "/v1/settle/" .. call.name, headers, call.body)
  if status == 200 or premature then return end
  if (not status or status == 503) and try < TRIES then
    ngx.timer.at(2 ^ try / 4, say, call, headers, try + 1)
  else
    ngx.log(ngx.ERR, "call ", call.name, " is not settled, and ends by itself: ", status or why)
  end
end

-- However it ended (log phase): what the provider said, and whether that was all.
function M.settle()
  local call = ngx.ctx.allotment
  if not call then return end
  local headers = call.whose
  local came = tonumber(ngx.var.upstream_header_time) ~= nil
  local connected = tonumber(ngx.var.upstream_connect_time) ~= nil
  headers["x-allotment-answer-bytes"] = call.size
  headers["x-allotment-outcome"] = not connected and "unsent" or (call.ended and came) and "complete" or "aborted"
  if came then
    headers["x-allotment-status"] = ngx.var.upstream_status
    headers["content-encoding"] = ngx.var.upstream_http_content_encoding
  end
  call.body = table.concat(call.head) .. table.concat(call.tail)
  ngx.timer.at(0, say, call, headers, 0)
end

return M
