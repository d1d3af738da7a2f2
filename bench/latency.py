#!/usr/bin/env python3
"""Publishes one message at a time and asks PostgreSQL until its row shows it: publish → visible row, in milliseconds."""
import argparse, asyncio, json, time
import asyncpg, paho.mqtt.client as mqtt

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--database-url", required=True)
parser.add_argument("--samples", type=int, default=1000)
options = parser.parse_args()


async def main():
    client = mqtt.Client(client_id="latency-probe")
    client.connect("127.0.0.1", options.port)
    client.loop_start()
    database = await asyncpg.connect(options.database_url)
    query = await database.prepare(
        "select last_seq from refold.device_status where tenant_id = 'probe' and device_id = 'probe'")
    times = []
    for seq in range(options.samples):
        payload = json.dumps({"ts": "2026-01-01T00:00:00Z", "site_id": "s", "seq": seq, "metrics": {"t": 1.5}})
        begin = time.perf_counter()
        client.publish("tenant/probe/device/probe/telemetry", payload, qos=1)
        while await query.fetchval() != seq:
            if time.perf_counter() - begin > 10:
                raise SystemExit("a message did not show in ten seconds")
            await asyncio.sleep(0)
        times.append((time.perf_counter() - begin) * 1000)
        await asyncio.sleep(0.005)
    times.sort()
    print(json.dumps({"p50": times[len(times) // 2], "p99": times[len(times) * 99 // 100], "max": times[-1]}))


asyncio.run(main())
