-- A steady load for wrk: each thread has one connection, decides, and answers on a new one, at times fixed beforehand.
-- Arguments: requests per second of this thread, and "route", or "empty" for the endpoint that does nothing.
local ffi = require("ffi")
ffi.cdef [[ typedef struct { long s; long ns; } moment; int clock_gettime(int clock, moment *out); ]]
local moment = ffi.new("moment")
local function now()
  ffi.C.clock_gettime(1, moment)
  return tonumber(moment.s) + tonumber(moment.ns) * 1e-9
end

local threads = {}
function setup(thread)
  threads[#threads + 1] = thread
  thread:set("number", #threads)
end

function init(args)
  period, mode = 1 / tonumber(args[1]), args[2]
  select_s, feedback_s, empty_s, acknowledged, refused = {}, {}, {}, 0, 0
  start, sent, id = now() + number * period / 20, 0, nil
  json = { ["content-type"] = "application/json" }
  closing = { ["content-type"] = "application/json", ["connection"] = "close" }
end

function delay()
  return math.max(0, (start + sent * period - now()) * 1000)
end

function request()
  sent, began = sent + 1, now()
  if mode == "empty" then
    kind = "empty"
    return wrk.format("GET", "/healthz")
  end
  if id then
    kind, body = "feedback", '{"id": "' .. id .. '", "reward": 0.5}'
    return wrk.format("POST", "/feedback", json, body)
  end
  kind = "select"
  return wrk.format("POST", "/select", closing, '{"context": [1.0, 0.5, 0.25, 0.125, 0, 0, 0, 0]}')
end

function response(status, headers, body)
  local took = now() - began
  if status ~= 200 then
    refused, id = refused + 1, nil
  elseif kind == "select" then
    select_s[#select_s + 1] = took
    id = body:match('"id":"(%d+)"')
  elseif kind == "feedback" then
    feedback_s[#feedback_s + 1] = took
    acknowledged, id = acknowledged + 1, nil
  else
    empty_s[#empty_s + 1] = took
  end
end

local function told(name)
  local all = {}
  for _, thread in ipairs(threads) do
    for _, value in ipairs(thread:get(name)) do all[#all + 1] = value end
  end
  table.sort(all)
  local at = function(q) return #all > 0 and all[math.max(1, math.ceil(q * #all))] * 1e3 or 0 end
  return string.format('{"calls": %d, "p50_ms": %.3f, "p99_ms": %.3f}', #all, at(.5), at(.99))
end

function done(summary, latency, requests)
  local acknowledged, refused = 0, 0
  for _, thread in ipairs(threads) do
    acknowledged, refused = acknowledged + thread:get("acknowledged"), refused + thread:get("refused")
  end
  local e = summary.errors
  io.write(string.format(
    '\nRESULT {"select": %s, "feedback": %s, "empty": %s, "acknowledged": %d, "refused": %d, "socket_errors": %d}\n',
    told("select_s"), told("feedback_s"), told("empty_s"), acknowledged, refused,
    e.connect + e.read + e.write + e.timeout))
end
