-- wrk -s post.lua URL -- BODY_FILE: posts the file again and again; ends with a line of JSON, times in microseconds.

function init(args)
  local file = assert(io.open(args[1], "rb"))
  wrk.method = "POST"
  wrk.body = file:read("*a")
  wrk.headers["Content-Type"] = "application/json"
  file:close()
end

function done(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  print(string.format('{"requests": %d, "failed": %d, "duration": %d, "p50": %f, "p99": %f}',
    summary.requests, failed, summary.duration, latency:percentile(50), latency:percentile(99)))
end
