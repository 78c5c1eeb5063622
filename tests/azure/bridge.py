"""Lets containers reach a server that listens on this machine's loopback only.

`bridge.py socket PATH PORT` answers on a Unix socket for 127.0.0.1:PORT; `bridge.py port PATH PORT`,
in a container that has the socket's folder mounted, answers on PORT for the socket.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import StreamReader, StreamWriter


async def pump(source: StreamReader, target: StreamWriter) -> None:
    try:
        while content := await source.read(65536):
            target.write(content)
            await target.drain()
        target.write_eof()
    except (OSError, RuntimeError):
        target.close()


async def main(end: str, path: str, port: int) -> None:
    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        if end == "port":
            beyond = await asyncio.open_unix_connection(path)
        else:
            beyond = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, beyond[1]), pump(beyond[0], writer))
        writer.close()
        beyond[1].close()

    if end == "port":
        server: asyncio.Server = await asyncio.start_server(serve, None, port)
    else:
        server = await asyncio.start_unix_server(serve, path)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
