-- codes: every number that crosses the border between Lua and Python.
--
-- Operation kinds are also the kinds of ledger events (ledger.proto, EntryKind), so one number
-- means one thing from the wire to the archive.  EXPIRE and SUPERSEDE are never asked for: the
-- kernel adds them.  Result codes: below 10 success, 10..19 a refusal (an answer: nothing
-- changed), 20 and above an error of the caller (nothing changed).

local RESERVE, COMMIT, RELEASE, EXTEND, EXPIRE, SUPERSEDE = 1, 2, 3, 4, 5, 6
local PUT_ITEM, ADJUST_STOCK, SET_STOCK = 7, 8, 9
local GET_RESERVATION, GET_STOCK = 20, 21

local OK, REPLAYED, AGAIN = 0, 1, 2
local OUT_OF_STOCK, STOCK_CHANGED, CHANNEL_QUOTA, HOLD_BUDGET, STOCK_LOST = 10, 11, 12, 13, 14
local INVALID, UNKNOWN_SKU, UNKNOWN_RESERVATION, RESERVATION_ID_REUSED = 20, 21, 22, 23
local RESERVATION_EXPIRED, RESERVATION_COMMITTED = 24, 25
local RESERVATION_RELEASED, RESERVATION_SUPERSEDED = 26, 27
local EXCEEDS_HOLD, LIFETIME_EXCEEDED, STALE_QUANTITY, NOT_OWNER = 28, 29, 30, 31

-- Reserve flags (bits of the operation) and reservation flags (bits of the record).
local ALLOW_PARTIAL, ALLOW_BACKORDER = 1, 2
local LATE, SUPERSEDED, BUDGETED, PARTIAL = 1, 2, 4, 8

-- Late-commit policies (inventory.proto, LateCommit).
local LATE_REJECT, LATE_REVIEW = 1, 3

-- Separators inside text fields; the edge refuses control characters, so none needs escaping.
local US, RS, GS = '\31', '\30', '\29'

local UNITS_MAX, LINES_MAX, CHANNELS_MAX, TTL_MIN_MS = 1000000000, 100, 100, 100
local TTL_MAX_MS, LIFETIME_MAX_MS = 86400000, 604800000
local HORIZON_MAX_MS, COVER_MAX_MS = 3600000, 86400000

-- A batch ends at most SWEEP_BASE due holds beside one for each of its operations, and looks at
-- the next SOONEST_MAX live ones to tell a refused caller when units may come free.
local SWEEP_BASE, SOONEST_MAX = 64, 64
