"""A store for replicas in Redis; needs the extra ``redis``."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from banditroute.durability.stores import BASE, StoreRow, actual, order, parsed

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["RedisStore"]

Result = TypeVar("Result")
TRIES = 10  # of a transaction, where others write the same row

# All rows at one moment. A key of another type is told as an empty row.
_INDEX = """
local found = {}
for _, key in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local row = redis.pcall('HGET', key, 'row')
  if row then
    found[#found + 1] = key
    found[#found + 1] = type(row) == 'string' and row or ''
  end
end
return found
"""
# A decision is 'o' and its bytes; taken, it is 't', the token, a newline and its bytes, until its time is over.
_TAKE = """
local found = redis.pcall('GET', KEYS[1])
if not found then return false end
if type(found) ~= 'string' then return '' end
local kind = string.sub(found, 1, 1)
if kind == 'o' then
  local data = string.sub(found, 2)
  redis.call('SET', KEYS[1], 't' .. ARGV[1] .. '\\n' .. data, 'KEEPTTL')
  return data
end
local at = string.find(found, '\\n', 1, true)
if kind == 't' and at and string.sub(found, 2, at - 1) == ARGV[1] then return string.sub(found, at + 1) end
return ''
"""


class RedisStore:
    """Statistics of replicas and shared decisions in Redis 6 or later.

    Parameters
    ----------
    url : str or redis.Redis
        As for ``redis.Redis.from_url``, or a client that returns bytes.
    prefix : str
        Starts every key: one prefix for each shared bandit.
    timeout_s : float
        Of each call; a store that does not answer counts as down.

    Raises
    ------
    ValueError
        The client decodes what it reads: parts are bytes.

    Notes
    -----
    Each replica has a hash: a row and a part per arm, so that only arms that changed travel. Rows carry sequence
    numbers and a transaction passes over older ones, so duplicates and stragglers do no harm. A decision that was taken
    stays, with the token of who took it, until its time is over: a second answer is told from an unknown id, and a call
    whose reply was lost is asked again.

    Examples
    --------
    >>> RedisStore("redis://localhost:6379/0").prefix
    'banditroute'
    """

    def __init__(self, url: "str | Redis", *, prefix: str = "banditroute", timeout_s: float = 2.0) -> None:
        import redis
        from redis.backoff import ConstantBackoff
        from redis.retry import Retry

        self.prefix = prefix
        self._client: Any = url
        if isinstance(url, str):
            self._client = redis.Redis.from_url(
                url,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                retry=Retry(ConstantBackoff(0.01), 1),  # every call may be made again without harm
            )
        pool = getattr(self._client, "connection_pool", None)
        if getattr(pool, "connection_kwargs", {}).get("decode_responses"):
            raise ValueError("url must be a client that returns bytes, got one with decode_responses=True")
        self._down = redis.RedisError
        self._conflict = redis.WatchError
        self._replicas = f"{prefix}:replicas"
        self._index = self._client.register_script(_INDEX)
        self._take = self._client.register_script(_TAKE)

    def __repr__(self) -> str:
        return f"RedisStore(prefix={self.prefix!r})"

    def _key(self, replica: str) -> bytes:
        return f"{self.prefix}:replica:{replica}".encode(errors="surrogatepass")

    def _decision(self, key: int) -> str:
        return f"{self.prefix}:decision:{key:016x}"

    def _call(self, function: Callable[[], Result]) -> Result:
        try:
            return function()
        except self._down as error:
            raise OSError(f"redis: {error}") from error

    def index(self) -> dict[str, StoreRow]:
        """Return the row of every replica, all of one moment; {} for what is no row."""
        found = self._call(lambda: self._index(keys=[self._replicas]))
        start, rows = self._key(""), {}
        for key, row in zip(found[::2], found[1::2], strict=True):
            if key.startswith(start):
                rows[key[len(start) :].decode(errors="surrogateescape")] = parsed(row)
            else:
                rows[key.decode(errors="replace")] = {}
        return rows

    def _row(self, pipe: Any, replica: str) -> StoreRow | None:
        """Return the row there; None where there is none, {} where it is not of this type or form."""
        kind = pipe.type(self._key(replica))
        if kind != b"hash":
            return None if kind == b"none" else {}
        raw = pipe.hget(self._key(replica), "row")
        return None if raw is None else parsed(raw)

    def _written(
        self, pipe: Any, replica: str, row: StoreRow, parts: Mapping[str, bytes], gone: Sequence[str] = ()
    ) -> None:
        key = self._key(replica)
        pipe.hset(key, mapping={**{_field(n): data for n, data in parts.items()}, b"row": json.dumps(row)})
        if gone:
            pipe.hdel(key, *(_field(name) for name in gone))
        pipe.sadd(self._replicas, key)

    def put(self, replica: str, row: StoreRow, parts: Mapping[str, bytes]) -> list[str]:
        """Replace row and parts, unless the row there is as new; returns the parts that are missing."""

        def run(pipe: Any) -> list[str]:
            pipe.watch(self._key(replica))
            old = self._row(pipe, replica)
            if order(old) >= order(row):
                return []
            true, missing, gone = actual(old, row, parts)
            pipe.multi()
            if old == {}:  # of another type, or no row
                pipe.delete(self._key(replica))
                true, missing, gone = actual(None, row, parts)
            self._written(pipe, replica, true, parts, gone)
            pipe.execute()
            return missing

        return self._transaction(run)

    def _transaction(self, run: Callable[[Any], Result]) -> Result:
        def tried() -> Result:
            for _ in range(TRIES):
                with self._client.pipeline() as pipe:
                    try:
                        return run(pipe)
                    except self._conflict:
                        continue
            raise OSError("redis: others write the same row all the time")

        return self._call(tried)

    def fetch(self, replica: str, names: Sequence[str]) -> dict[str, bytes]:
        """Return those of the named parts that exist."""
        if not names:
            return {}
        found = self._call(lambda: self._client.hmget(self._key(replica), [_field(n) for n in names]))
        return {name: data for name, data in zip(names, found, strict=True) if data is not None}

    def compact(
        self,
        expected: StoreRow | None,
        row: StoreRow,
        parts: Mapping[str, bytes],
        gone: Mapping[str, StoreRow],
    ) -> bool:
        """Replace `BASE` and delete the replicas in `gone` if all are as given, in one transaction."""

        def run(pipe: Any) -> bool:
            seen = {BASE: expected, **gone}
            pipe.watch(*(self._key(name) for name in seen))
            if any(order(self._row(pipe, name)) != order(wanted) for name, wanted in seen.items()):
                return False
            pipe.multi()
            for name in (BASE, *gone):
                pipe.delete(self._key(name))
                pipe.srem(self._replicas, self._key(name))
            self._written(pipe, BASE, row, parts)
            pipe.execute()
            return True

        return self._transaction(run)

    def keep(self, decisions: Mapping[int, bytes], ttl_s: float) -> None:
        """Keep pending decisions, in one round trip."""

        def run() -> None:
            with self._client.pipeline(transaction=False) as pipe:
                for key, data in decisions.items():
                    pipe.set(self._decision(key), b"o" + data, px=max(1, int(ttl_s * 1e3)), nx=True)
                pipe.execute()

        self._call(run)

    def look(self, keys: Sequence[int]) -> list[bytes | None]:
        """Return decisions without taking them, in one round trip."""
        found = self._call(lambda: self._client.mget([self._decision(key) for key in keys])) if keys else []
        return [None if data is None else data[1:] if data[:1] == b"o" else b"" for data in found]

    def take(self, keys: Sequence[int], token: str) -> list[bytes | None]:
        """Take decisions for a token, in one round trip; asked again with it, it answers the same."""

        def run() -> list[bytes | None]:
            with self._client.pipeline(transaction=False) as pipe:
                for key in keys:
                    self._take(keys=[self._decision(key)], args=[token], client=pipe)
                return list(pipe.execute())

        return self._call(run)


def _field(name: str) -> bytes:
    return b"part:" + name.encode(errors="surrogatepass")
