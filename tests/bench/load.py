"""A client that posts one body over and over, on a few kept connections: `python -m tests.bench.load URL BODY ...`.

Used where wrk is missing, and where a load is wanted that is not the most the server can take.
"""

import argparse
import asyncio
import time
from pathlib import Path
from urllib.parse import urlsplit


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("url")
    arguments.add_argument("body", type=Path)
    arguments.add_argument("--connections", type=int, default=8)
    arguments.add_argument("--seconds", type=float, default=5.0)
    arguments.add_argument("--rate", type=float, default=0.0, help="Requests a second; 0 for as many as can be.")
    given = arguments.parse_args()
    asyncio.run(post(given.url, given.body.read_bytes(), given.connections, given.seconds, given.rate))


async def post(url: str, body: bytes, connections: int, seconds: float, rate: float) -> None:
    """Post until the time is over; each connection sends its next request when the last is answered, and it is due."""
    parts = urlsplit(url)
    head = f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-length: {len(body)}\r\n\r\n"
    request = head.encode() + body
    end = time.monotonic() + seconds

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        due = time.monotonic() + (number / rate if rate else 0.0)
        while time.monotonic() < end:
            if rate:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                due += connections / rate
            writer.write(request)
            await answer(reader)
        writer.close()

    await asyncio.gather(*(client(number) for number in range(connections)))


async def answer(reader: asyncio.StreamReader) -> None:
    """Read one response to its end."""
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 202"):
        raise SystemExit(head.decode())
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.partition(b":")[2]))


if __name__ == "__main__":
    main()
