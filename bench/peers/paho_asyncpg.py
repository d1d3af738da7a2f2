#!/usr/bin/env python3
"""The stack that Refold's users have today: paho-mqtt 1.6.1 and asyncpg, one statement a message, a pool of ten.

Message to committed row, measured from the first message's arrival to the last row's commit. Written as such services are
written: paho's network thread hands each message to asyncio, ten workers take them from a queue, each upserts the device's
row in a transaction of its own. The database keeps its durability (synchronous_commit as the server has it).

    paho_asyncpg.py --port 1883 --database-url postgresql://… --count 20000

Prints one JSON object last: messages, seconds, messages_per_second. Subscribe before publishing: the table
`device_status` exists once the subscription stands.
"""
import argparse, asyncio, json, time
import asyncpg
import paho.mqtt.client as mqtt

POOL = 10
TABLE = """
CREATE TABLE IF NOT EXISTS device_status (
    tenant_id text, device_id text, site_id text, status text, first_seen_at timestamptz, last_seen_at timestamptz,
    message_count bigint NOT NULL DEFAULT 0, last_seq bigint, last_metrics jsonb, PRIMARY KEY (tenant_id, device_id))
"""
UPSERT = """
INSERT INTO device_status AS d (tenant_id, device_id, site_id, status, first_seen_at, last_seen_at, message_count, last_seq,
    last_metrics)
VALUES ($1, $2, $3, 'ONLINE', now(), now(), 1, $4, $5)
ON CONFLICT (tenant_id, device_id) DO UPDATE SET site_id = EXCLUDED.site_id, status = 'ONLINE', last_seen_at = now(),
    message_count = d.message_count + 1, last_seq = EXCLUDED.last_seq, last_metrics = EXCLUDED.last_metrics
"""


async def write(pool, queue):
    while True:
        topic, payload = await queue.get()
        try:
            parts = topic.split("/")
            body = json.loads(payload)
            await pool.execute(
                UPSERT, parts[1], parts[3], body.get("site_id"), body.get("seq"), json.dumps(body.get("metrics")))
        except (ValueError, IndexError):
            pass  # such services log it and go on
        finally:
            queue.task_done()


async def measure(arguments):
    loop, queue = asyncio.get_running_loop(), asyncio.Queue()
    pool = await asyncpg.create_pool(arguments.database_url, min_size=POOL, max_size=POOL)
    workers = [asyncio.create_task(write(pool, queue)) for _ in range(POOL)]
    received, first, done, subscribed = 0, None, asyncio.Event(), asyncio.Event()

    def arrived(topic, payload):
        nonlocal received, first
        first = first or time.monotonic()
        received += 1
        queue.put_nowait((topic, payload))
        if received == arguments.count:
            done.set()

    client = mqtt.Client(client_id="paho-asyncpg", clean_session=True)
    client.max_inflight_messages_set(65535)
    client.on_connect = lambda c, *_: c.subscribe("tenant/+/device/+/#", qos=1)
    client.on_subscribe = lambda *_: loop.call_soon_threadsafe(subscribed.set)
    client.on_message = lambda _c, _u, m: loop.call_soon_threadsafe(arrived, m.topic, m.payload)
    client.connect(arguments.host, arguments.port)
    client.loop_start()
    await subscribed.wait()
    await pool.execute(TABLE)
    await done.wait()
    await queue.join()
    seconds = time.monotonic() - first
    client.loop_stop()
    client.disconnect()
    for worker in workers:
        worker.cancel()
    total = await pool.fetchval("SELECT sum(message_count) FROM device_status")
    await pool.close()
    if int(total) != arguments.count:
        raise SystemExit(f"the table counts {total} messages, {arguments.count} were received")
    print(json.dumps({
        "messages": arguments.count, "seconds": round(seconds, 3),
        "messages_per_second": round(arguments.count / seconds)}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--devices", type=int, default=10_000, help="accepted for symmetry; devices are who publishes")
    asyncio.run(measure(parser.parse_args()))
