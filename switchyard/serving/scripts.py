"""What the online store does in one step, as Lua: each script touches one key, so that a cluster works.

Every script may run twice with the same arguments and changes nothing the second time. Not here: who
calls them (``commands``, ``online_store``, ``profile_sync``).
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
        return b"%b%b%b" % (self.head(len(arguments)), bulk(key), b"".join(map(bulk, arguments)))

    def head(self, arguments: int) -> bytes:
        """What stands before the key in a call with so many arguments."""
        return b"*%d\r\n%b" % (arguments + 4, self._head)


APPEND = Script(
    """
-- Activity of KEYS[1]: add the event record ARGV[1] (48 bytes) unless it is there; its sequence number.
-- Value: int64 last number, int64 format version, records ordered by (int64 time, int64 id).
local RECORD, HEAD, KEPT, MOST = 48, 16, 256, 512
local key, new, call, unpack = KEYS[1], ARGV[1], redis.call, struct.unpack
if #new ~= RECORD then
  return redis.error_reply('ERR an event record has ' .. RECORD .. ' bytes, this one ' .. #new)
end
-- ids have 64 bits and Lua's numbers 53: two halves
local time_low, time_high, id_low, id_high = unpack('<I4i4I4i4', new)
local time = time_high * 4294967296 + time_low
local function after(value, at)  -- > 0: the new event comes after the record at this byte; 0: it is this record
  local t_low, t_high, low, high = unpack('<I4i4I4i4', value, at)
  local t = t_high * 4294967296 + t_low
  if time ~= t then return time - t end
  if id_high ~= high then return id_high - high end
  return id_low - low
end
local function numbered(number)
  return string.sub(new, 1, 40) .. struct.pack('<I4', number) .. string.sub(new, 45)
end

local size = call('STRLEN', key)
local count, head = (size - HEAD) / RECORD, struct.pack('<i8i8', 0, 1)
if size == 0 then count = 0 else head = call('GETRANGE', key, 0, HEAD - 1) end
local number, version = 0, 0
if count >= 0 and count == math.floor(count) then number, version = unpack('<i8i8', head) end
if version ~= 1 then return redis.error_reply('ERR this is no activity of format version 1') end

-- as a rule it is the newest and there is room: the rest of the value is not even looked at
if count > 0 and count < MOST and after(call('GETRANGE', key, size - RECORD, size - 33), 1) > 0 then
  number = number + 1
  call('SETRANGE', key, 0, struct.pack('<i8', number))
  call('APPEND', key, numbered(number))
  return number
end

local value = size == 0 and head or call('GET', key)
local low, high = 0, count  -- the first record that the new event does not come after
while low < high do
  local middle = math.floor((low + high) / 2)
  if after(value, HEAD + middle * RECORD + 1) > 0 then low = middle + 1 else high = middle end
end
local at = HEAD + low * RECORD
if low < count and after(value, at + 1) == 0 then return (unpack('<I4', value, at + 41)) end

number = number + 1
if count - low >= KEPT then  -- older than all that is kept: it counts nowhere
  call('SETRANGE', key, 0, struct.pack('<i8', number))
else
  local records = string.sub(value, HEAD + 1, at) .. numbered(number) .. string.sub(value, at + 1)
  if count >= MOST then records = string.sub(records, -KEPT * RECORD) end
  call('SET', key, struct.pack('<i8i8', number, 1) .. records)
end
return number
"""
)

TAKE_OVER = Script(
    """
-- Decision KEYS[1], which somebody has claimed: claim it for token ARGV[1] and body ARGV[2] (16 bytes each)
-- if that was ARGV[3] ms ago or more. A claim is kept for ARGV[4] s, so what is left of these tells its age.
-- Answer: 'n' claimed, it was gone; 'x' + earlier body: claimed (also if it was the same token's); 'b' +
-- body: held; 'r' + body + reply: decided.
local held = redis.call('GET', KEYS[1])
local answer = 'n'
if held then
  local kind = string.sub(held, 1, 1)
  if kind == 'r' then return held end
  if kind ~= 'c' or #held < 33 then return redis.error_reply('ERR this is no decision') end
  local age = ARGV[4] * 1000 - redis.call('PTTL', KEYS[1])
  local mine = string.sub(held, 2, 17) == ARGV[1]
  if not mine and age >= 0 and age < tonumber(ARGV[3]) then  -- below 0: the clock was set back
    return 'b' .. string.sub(held, 18, 33)
  end
  answer = 'x' .. string.sub(held, 18, 33)
end
redis.call('SET', KEYS[1], 'c' .. ARGV[1] .. ARGV[2], 'EX', ARGV[4])
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

REPLACE = Script(
    """
-- Set KEYS[1] to ARGV[2] if it is ARGV[1] still: 1, else 0.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""
)

SCRIPTS = tuple(s.source for s in (APPEND, TAKE_OVER, FINISH, RAISE_TO, LEASE, REPLACE))
