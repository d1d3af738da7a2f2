// simdjson
