-- Says to the agent what the answer to a call was, once it is whole.
local ENDS_BYTES = 64 * 1024 -- of an answer its first and last so many bytes are kept: there stands what it used
local OURS = { "x-allotment-customer", "x-allotment-feature", "x-allotment-user", "x-allotment-body-bytes" }
local PLACE = "allotment"

-- After these nothing follows that counts, and clients go: the rest of this script would then not run.
local LAST = { "\ndata: [DONE]", "\nevent: message_stop" }
local LAST_BYTES = 32

local function is_last(text)
  for _, last in ipairs(LAST) do
    if text:find(last, 1, true) then return true end
  end
  return false
end

-- What is said to the agent is no business of the provider.
function envoy_on_request(handle)
  local headers, whose = handle:headers(), {}
  for _, name in ipairs(OURS) do
    whose[name] = headers:get(name)
    headers:remove(name)
  end
  headers:replace("accept-encoding", "identity") -- to be read
  local said = handle:streamInfo():dynamicMetadata():get("envoy.filters.http.ext_authz")
  if said and said["x-allotment-reservation"] then
    whose.name = said["x-allotment-reservation"]
    handle:streamInfo():dynamicMetadata():set(PLACE, "whose", whose)
  end
end

local function settle(handle, whose, answer)
  local headers = {
    [":method"] = "POST", [":path"] = "/v1/settle/" .. whose.name, [":authority"] = "localhost",
    ["x-allotment-outcome"] = "complete", ["x-allotment-status"] = answer.status,
    ["x-allotment-answer-bytes"] = tostring(answer.size), ["content-encoding"] = answer.encoding,
  }
  for _, name in ipairs(OURS) do headers[name] = whose[name] end
  local body = table.concat(answer.head) .. table.concat(answer.tail)
  handle:httpCall("allotment", headers, body, 3000, true)
end

local function keep(answer, part)
  answer.size = answer.size + #part
  local room = ENDS_BYTES - answer.head_bytes
  if room > 0 then
    answer.head[#answer.head + 1] = part:sub(1, room)
    answer.head_bytes = answer.head_bytes + math.min(#part, room)
    part = part:sub(room + 1)
  end
  if part == "" then return end
  answer.tail[#answer.tail + 1] = part
  answer.tail_bytes = answer.tail_bytes + #part
  if answer.tail_bytes > 2 * ENDS_BYTES then
    answer.tail = { table.concat(answer.tail):sub(-ENDS_BYTES) }
    answer.tail_bytes = ENDS_BYTES
  end
end

function envoy_on_response(handle)
  local kept = handle:streamInfo():dynamicMetadata():get(PLACE)
  if not kept then return end
  local answer = {
    status = handle:headers():get(":status"), encoding = handle:headers():get("content-encoding"),
    size = 0, head = {}, head_bytes = 0, tail = {}, tail_bytes = 0,
  }
  local before = ""
  for chunk in handle:bodyChunks() do -- each goes on to the caller as soon as it is seen here
    if chunk:length() > 0 then
      local part = chunk:getBytes(0, chunk:length())
      keep(answer, part)
      before = before .. part
      if is_last(before) then break end
      before = before:sub(-LAST_BYTES)
    end
  end
  settle(handle, kept.whose, answer)
end
