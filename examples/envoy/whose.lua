-- Says to the agent whose call it is, by the caller's key.
local KEYS = {
  ["Bearer key-of-acme"] = "acme",
  ["Bearer key-of-globex"] = "globex",
}
local UNKNOWN = '{"error": {"message": "this key is not known here", "type": "api_key_unknown", "code": "api_key_unknown"}}'

function envoy_on_request(handle)
  local headers = handle:headers()
  local said = {}
  for name in pairs(headers) do
    if name:sub(1, 12) == "x-allotment-" then said[#said + 1] = name end
  end
  for _, name in ipairs(said) do headers:remove(name) end
  local customer = KEYS[headers:get("authorization") or ""]
  if not customer then
    handle:respond({ [":status"] = "401", ["content-type"] = "application/problem+json" }, UNKNOWN)
    return
  end
  headers:add("x-allotment-customer", customer)
  headers:add("x-allotment-feature", "chat")
  local user, size = headers:get("x-user"), headers:get("content-length")
  if user then headers:add("x-allotment-user", user) end
  if size then headers:add("x-allotment-body-bytes", size) end
end
