"""What the online store does in one step, as Lua: each script touches one key, so that a cluster works.

Every script may run twice with the same arguments and changes nothing the second time. Not here: who
calls them (``online_store``, ``profile_sync``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from switchyard.serving.wire import bulk


@dataclass(frozen=True)
class Script:
    """A script's source; :meth:`call` gives the command that runs it."""

    source: str
    _head: bytes = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest().encode()
        object.__setattr__(self, "_head", b"$7\r\nEVALSHA\r\n%b$1\r\n1\r\n" % bulk(digest))

    def call(self, key: bytes, *arguments: bytes) -> bytes:
        """The command in protocol form, to send over a Wire that loaded the script."""
        tail = b"".join(map(bulk, arguments))
        return b"*%d\r\n%b%b%b" % (len(arguments) + 4, self._head, bulk(key), tail)


APPEND = Script(
    """
-- Activity of KEYS[1]: add the event record ARGV[1] (48 bytes) unless it is there; its sequence number.
-- Value: int64 last number, int64 format version, records ordered by (int64 time, int64 id).
local RECORD, HEAD, KEPT, MOST = 48, 16, 256, 512
local key, new = KEYS[1], ARGV[1]
if #new ~= RECORD then
  return redis.error_reply('ERR an event record has ' .. RECORD .. ' bytes, this one ' .. #new)
end
local value = redis.call('GET', key) or struct.pack('<i8i8', 0, 1)
local count = (#value - HEAD) / RECORD
local number, version = 0, 0
if count >= 0 and count == math.floor(count) then number, version = struct.unpack('<i8i8', value) end
if version ~= 1 then return redis.error_reply('ERR this is no activity of format version 1') end

-- ids have 64 bits and Lua's numbers 53: two halves
local time_low, time_high, id_low, id_high = struct.unpack('<I4i4I4i4', new)
local time = time_high * 4294967296 + time_low
local function after(index)  -- > 0: the new event comes after this record; 0: it is this record
  local t_low, t_high, low, high = struct.unpack('<I4i4I4i4', value, HEAD + index * RECORD + 1)
  local t = t_high * 4294967296 + t_low
  if time ~= t then return time - t end
  if id_high ~= high then return id_high - high end
  return id_low - low
end

local low, high = 0, count  -- the first record that the new event does not come after
if count > 0 and after(count - 1) > 0 then low = count end
while low < high do
  local middle = math.floor((low + high) / 2)
  if after(middle) > 0 then low = middle + 1 else high = middle end
end
local at = HEAD + low * RECORD
if low < count and after(low) == 0 then return (struct.unpack('<I4', value, at + 41)) end

number = number + 1
local record = string.sub(new, 1, 40) .. struct.pack('<I4', number) .. string.sub(new, 45)
if count > 0 and low == count and count < MOST then
  redis.call('SETRANGE', key, 0, struct.pack('<i8', number))
  redis.call('APPEND', key, record)
elseif count - low >= KEPT then  -- older than all that is kept: it counts nowhere
  redis.call('SETRANGE', key, 0, struct.pack('<i8', number))
else
  local records = string.sub(value, HEAD + 1, at) .. record .. string.sub(value, at + 1)
  if count >= MOST then records = string.sub(records, -KEPT * RECORD) end
  redis.call('SET', key, struct.pack('<i8i8', number, 1) .. records)
end
return number
"""
)

CLAIM = Script(
    """
-- Decision KEYS[1]: claim it for token ARGV[1] and body ARGV[2] (16 bytes each), a lease of ARGV[3] ms,
-- kept for ARGV[4] s. Answer: 'n' claimed, 'x' + body claimed from a lease that ran out (or again by
-- the same token), 'b' + body held by another token, 'r' + body + reply stored.
local held = redis.call('GET', KEYS[1])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local answer = 'n'
if held then
  if string.sub(held, 1, 1) == 'r' then return held end
  if #held ~= 41 then return redis.error_reply('ERR this is no decision') end
  local left = struct.unpack('<i8', held, 34) - now
  local mine = string.sub(held, 2, 17) == ARGV[1]
  if not mine and left > 0 and left <= tonumber(ARGV[3]) then  -- more left: the clock was set back
    return 'b' .. string.sub(held, 18, 33)
  end
  answer = 'x' .. string.sub(held, 18, 33)
end
local claim = 'c' .. ARGV[1] .. ARGV[2] .. struct.pack('<i8', now + ARGV[3])
redis.call('SET', KEYS[1], claim, 'EX', ARGV[4])
return answer
"""
)

FINISH = Script(
    """
-- Decision KEYS[1]: store 'r' + body ARGV[1] + reply ARGV[2] for ARGV[3] s, unless a reply is stored
-- already; that one is then the answer.
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, 1) == 'r' then return held end
redis.call('SET', KEYS[1], 'r' .. ARGV[1] .. ARGV[2], 'EX', ARGV[3])
return false
"""
)

RAISE_TO = Script(
    """
-- Set the number in KEYS[1] to ARGV[1] unless it is larger already.
local held = redis.call('GET', KEYS[1])
if not held or tonumber(held) < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1]) end
return 1
"""
)

LEASE = Script(
    """
-- Hold KEYS[1] for token ARGV[1] for another ARGV[2] ms (0: give it back). 1, or 0: another holds it.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 1
"""
)

SCRIPTS = tuple(script.source for script in (APPEND, CLAIM, FINISH, RAISE_TO, LEASE))
