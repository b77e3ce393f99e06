-- Asks the agent before a call is passed on, and says afterwards what the answer was.
local AGENT = "unix@/run/allotment/http.sock"
local ENDS_BYTES = 64 * 1024 -- of an answer its first and last so many bytes are kept: there stands what it used
local TRIES = 5
local CLOSED = '{"status": 503, "code": "no_decision", "error": {"code": "no_decision", "type": "no_decision", '
  .. '"message": "this host cannot tell whether the call is allowed"}}'

-- One request to the agent; its status, headers and body, or nil. (HAProxy's own HTTP client would ask four times.)
local function request(path, headers, body)
  local lines = { "POST " .. path .. " HTTP/1.1", "host: localhost", "connection: close", "content-length: " .. #body }
  for name, value in pairs(headers) do lines[#lines + 1] = name .. ": " .. value end
  local line = core.tcp()
  line:settimeout(3) -- the agent decides within 2 seconds
  if not line:connect(AGENT) then return nil end
  line:send(table.concat(lines, "\r\n") .. "\r\n\r\n" .. body)
  local answer = line:receive("*a")
  line:close()
  local head, rest = (answer or ""):match("^(.-\r\n)\r\n(.*)$")
  if not head then return nil end
  local said = {}
  for name, value in head:gmatch("([%w-]+): ([^\r]*)\r\n") do said[name:lower()] = value end
  return tonumber(head:match("^HTTP/1%.1 (%d%d%d)")), said, rest
end

local function whose(txn)
  return {
    ["x-allotment-customer"] = txn:get_var("txn.customer"), ["x-allotment-feature"] = txn:get_var("txn.feature"),
    ["x-allotment-user"] = txn:get_var("txn.user"), ["x-allotment-body-bytes"] = txn:get_var("txn.body_bytes"),
  }
end

-- Before a call is passed on.
core.register_action("ask", { "http-req" }, function(txn)
  local body = txn.f:req_body() or ""
  txn:set_var("txn.body_bytes", tostring(txn.f:req_body_size() or #body))
  local headers = whose(txn)
  headers["x-forwarded-method"], headers["x-forwarded-uri"] = txn.f:method(), txn.f:pathq()
  headers["authorization"], headers["content-type"] = txn.f:req_hdr("authorization"), txn.f:req_hdr("content-type")
  local status, said, answer = request("/v1/authz", headers, body)
  if status == 200 then
    for name, var in pairs({ ["x-allotment-reservation"] = "txn.reservation", ratelimit = "txn.ratelimit" }) do
      if said[name] then txn:set_var(var, said[name]) end
    end
    return
  end
  if not status then -- closed while no agent answers
    status, said, answer = 503, { ["retry-after"] = "1" }, CLOSED
  end
  local reply = txn:reply({ status = status, body = answer })
  reply:add_header("content-type", "application/problem+json")
  for _, name in ipairs({ "retry-after", "ratelimit", "x-should-retry" }) do
    if said[name] then reply:add_header(name, said[name]) end
  end
  txn:done(reply)
end, 0)

-- What has ended and is to be said: filters may not wait, so a task of its own says it.
local ended, last, said = {}, 0, 0

local function settle(call)
  for try = 1, TRIES do
    local status = request("/v1/settle/" .. call.name, call.headers, table.concat(call.head) .. table.concat(call.tail))
    if status and status ~= 503 then return end
    core.msleep(250 * 2 ^ try)
  end
  core.log(core.err, "call " .. call.name .. " is not settled, and ends by itself")
end

core.register_task(function()
  while true do
    while said < last do
      said = said + 1
      local call = ended[said]
      ended[said] = nil
      core.register_task(function() settle(call) end)
    end
    core.msleep(10)
  end
end)

-- Sees an answer pass, and keeps its two ends.
local See = { id = "see", flags = filter.FLT_CFG_FL_HTX }
See.__index = See

function See:new()
  return setmetatable({ head = {}, head_bytes = 0, tail = {}, tail_bytes = 0, size = 0 }, See)
end

function See:start_analyze(txn, channel)
  if channel:is_resp() then -- the provider has been reached
    self.sent = true
    filter.register_data_filter(self, channel)
  end
end

function See:http_headers(txn, message)
  if message.channel:is_resp() then
    local line = message:get_stline()
    self.status = line.code
    local encoding = message:get_headers()["content-encoding"]
    self.encoding = encoding and encoding[0]
  end
end

function See:http_payload(txn, message)
  local part = message:body()
  if not part or part == "" then return end
  self.size = self.size + #part
  local room = ENDS_BYTES - self.head_bytes
  if room > 0 then
    self.head[#self.head + 1] = part:sub(1, room)
    self.head_bytes = self.head_bytes + math.min(#part, room)
    part = part:sub(room + 1)
  end
  if part == "" then return end
  self.tail[#self.tail + 1] = part
  self.tail_bytes = self.tail_bytes + #part
  if self.tail_bytes > 2 * ENDS_BYTES then
    self.tail = { table.concat(self.tail):sub(-ENDS_BYTES) }
    self.tail_bytes = ENDS_BYTES
  end
end

function See:http_end(txn, message)
  if message.channel:is_resp() then self.whole = true end
end

function See:end_analyze(txn, channel)
  local name = txn:get_var("txn.reservation")
  if not channel:is_resp() or not name or self.told then return end
  self.told = true
  self.name, self.headers = name, whose(txn)
  self.headers["x-allotment-outcome"] = not self.sent and "unsent" or self.whole and "complete" or "aborted"
  self.headers["x-allotment-status"] = self.status
  self.headers["x-allotment-answer-bytes"] = self.size
  self.headers["content-encoding"] = self.encoding
  last = last + 1
  ended[last] = self
end

core.register_filter("see", See, function(see, args) return see end)
