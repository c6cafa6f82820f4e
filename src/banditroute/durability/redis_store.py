"""A store for replicas in Redis; needs the extra ``redis``."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from banditroute.durability.stores import BASE, Row, order

__all__ = ["RedisStore"]

# One round trip and atomic: nothing older ever overwrites what is newer.
_PUT = """
local old = redis.call('HGET', KEYS[1], 'row')
local before = {}
if old then
  local was = cjson.decode(old)
  before = was.parts
  local seq, beat = tonumber(ARGV[2]), tonumber(ARGV[3])
  if was.seq > seq or (was.seq == seq and was.beat >= beat) then return {} end
end
local given = {}
for i = 4, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  given[ARGV[i]] = true
end
local row, missing = cjson.decode(ARGV[1]), {}
row.lacking = row.lacking or {}
for name, version in pairs(row.parts) do
  if not given['part:' .. name] and before[name] ~= version then
    missing[#missing + 1] = name
    row.parts[name], row.lacking[name] = before[name], version
  end
end
redis.call('HSET', KEYS[1], 'row', #missing == 0 and ARGV[1] or cjson.encode(row))
redis.call('SADD', KEYS[2], KEYS[1])
return missing
"""
_TAKE = """
local found = redis.call('GET', KEYS[1])
if found and #found > 0 then redis.call('SET', KEYS[1], '', 'KEEPTTL') end
return found
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

    Notes
    -----
    Each replica has a hash: a row and a part per arm, so that only arms that changed travel. Rows carry sequence
    numbers and a script refuses older ones, so duplicates and stragglers do no harm. Taking a decision leaves an empty
    value until its time is over: a second answer is told from an unknown id.

    Examples
    --------
    >>> RedisStore("redis://localhost:6379/0").prefix
    'banditroute'
    """

    def __init__(self, url: Any, *, prefix: str = "banditroute", timeout_s: float = 2.0) -> None:
        import redis

        self.prefix = prefix
        if isinstance(url, str):
            self._client: Any = redis.Redis.from_url(
                url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s
            )
        else:
            self._client = url
        self._down = redis.RedisError
        self._conflict = redis.WatchError
        self._replicas = f"{prefix}:replicas"
        self._put = self._client.register_script(_PUT)
        self._take = self._client.register_script(_TAKE)

    def _key(self, replica: str) -> str:
        return f"{self.prefix}:replica:{replica}"

    def _call(self, function: Any) -> Any:
        try:
            return function()
        except self._down as error:
            raise OSError(f"redis: {error}") from error

    def index(self) -> dict[str, Row]:
        """Return the row of every replica, all of one moment."""
        script = """
        local found = {}
        for _, key in ipairs(redis.call('SMEMBERS', KEYS[1])) do
          local row = redis.call('HGET', key, 'row')
          if row then found[#found + 1] = key; found[#found + 1] = row end
        end
        return found
        """
        found = self._call(lambda: self._client.eval(script, 1, self._replicas))
        start = len(self._key(""))
        rows = {}
        for key, row in zip(found[::2], found[1::2], strict=True):
            rows[key.decode()[start:]] = dict(json.loads(row))
        return rows

    def put(self, replica: str, row: Row, parts: Mapping[str, bytes]) -> list[str]:
        """Replace row and parts, unless the row there is as new; returns the parts that are missing."""
        fields = [value for name, data in parts.items() for value in (f"part:{name}", data)]
        args = [json.dumps(row), row["seq"], row["beat"], *fields]
        missing = self._call(lambda: self._put(keys=[self._key(replica), self._replicas], args=args))
        return [name.decode() for name in missing]

    def fetch(self, replica: str, names: Sequence[str]) -> dict[str, bytes]:
        """Return those of the named parts that exist."""
        if not names:
            return {}
        fields = [f"part:{name}" for name in names]
        found = self._call(lambda: self._client.hmget(self._key(replica), fields))
        return {name: data for name, data in zip(names, found, strict=True) if data is not None}

    def compact(
        self, expected: Row | None, row: Row, parts: Mapping[str, bytes], gone: Mapping[str, Row]
    ) -> bool:
        """Replace `BASE` and delete the replicas in `gone` if all are as given, in one transaction."""

        def run() -> bool:
            seen = {BASE: expected, **gone}
            with self._client.pipeline() as pipe:
                try:
                    pipe.watch(*(self._key(name) for name in seen))
                    for name, wanted in seen.items():
                        raw = pipe.hget(self._key(name), "row")
                        if order(None if raw is None else json.loads(raw)) != order(wanted):
                            return False
                    pipe.multi()
                    fields: dict[str, Any] = {f"part:{name}": data for name, data in parts.items()}
                    pipe.hset(self._key(BASE), mapping={**fields, "row": json.dumps(row)})
                    pipe.sadd(self._replicas, self._key(BASE))
                    for name in gone:
                        pipe.delete(self._key(name))
                        pipe.srem(self._replicas, self._key(name))
                    pipe.execute()
                except self._conflict:
                    return False
                return True

        return bool(self._call(run))

    def keep(self, decisions: Mapping[int, bytes], ttl_s: float) -> None:
        """Keep pending decisions, in one round trip."""

        def run() -> None:
            with self._client.pipeline(transaction=False) as pipe:
                for key, data in decisions.items():
                    pipe.set(f"{self.prefix}:decision:{key:016x}", data, px=max(1, int(ttl_s * 1e3)))
                pipe.execute()

        self._call(run)

    def take(self, keys: Sequence[int]) -> list[bytes | None]:
        """Take decisions, in one round trip."""

        def run() -> list[bytes | None]:
            with self._client.pipeline(transaction=False) as pipe:
                for key in keys:
                    self._take(keys=[f"{self.prefix}:decision:{key:016x}"], client=pipe)
                return list(pipe.execute())

        return list(self._call(run))
