-- wrk -s wrk.lua URL -- REQUEST EXPECTED PART
--
-- Posts the file REQUEST and counts as wrong every answer that is not 200 with a body equal to the
-- file EXPECTED, or, with a PART, whose part of that Lua pattern differs from EXPECTED's.

local threads = {}

local function content(name)
    local file = assert(io.open(name, "rb"))
    local text = file:read("*a")
    file:close()
    return text
end

function setup(thread)
    table.insert(threads, thread)
end

function init(args)
    wrk.method = "POST"
    wrk.headers["Content-Type"] = "application/json"
    wrk.body = content(args[1])
    part = args[3] ~= "" and args[3] or nil
    expected = content(args[2])
    if part then
        expected = assert(expected:match(part), "EXPECTED has no such PART")
    end
    wrong = 0
end

function response(status, headers, body)
    if part and status == 200 then
        body = body:match(part)
    end
    if status ~= 200 or body ~= expected then
        wrong = wrong + 1
    end
end

function done(summary, latency, requests)
    local wrong, errors = 0, summary.errors
    for _, thread in ipairs(threads) do
        wrong = wrong + thread:get("wrong")
    end
    io.write(string.format(
        'result: {"requests": %d, "requests_per_second": %.3f, "p50_ms": %.4f, "p99_ms": %.4f, '
            .. '"wrong": %d, "broken": %d}\n',
        summary.requests, summary.requests / (summary.duration / 1e6),
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
        wrong, errors.connect + errors.read + errors.write + errors.timeout
    ))
end
