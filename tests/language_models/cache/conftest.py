import threading

import fakeredis
import pytest

from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys


@pytest.fixture(scope="session")
def _redis_server():
    server = fakeredis.TcpFakeServer(("127.0.0.1", 0))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
def redis_url(_redis_server):
    """An empty database of a server that speaks Redis' own protocol over TCP."""
    import redis

    url = f"redis://127.0.0.1:{_redis_server.server_address[1]}/0"
    redis.Redis.from_url(url).flushdb()
    return url


@pytest.fixture(params=["sqlite", "lmdb"])
def file_url(request, tmp_path):
    """A cache of each kind of store that keeps files: below folder/."""
    return f"{request.param}://{tmp_path}/folder/cache"


@pytest.fixture(params=["sqlite", "lmdb", "redis"])
def url(request, tmp_path):
    """A cache of each kind of store."""
    if request.param == "redis":
        return request.getfixturevalue("redis_url")
    return f"{request.param}://{tmp_path}/folder%20with%20space/cache"


@pytest.fixture
def keys(tmp_path):
    """Contributor keys under the master key 00 01 02 … 1f."""
    with ContributorKeys(tmp_path / "keys" / "contributors.sqlite", bytes(range(32))) as keys:
        yield keys
