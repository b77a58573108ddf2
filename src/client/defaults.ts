/** Every limit and default of the SDK, in one place. Users change those that appear in `ConnectOptions`. */
import { assert } from '../base/assert.ts';
import { KIB, MIB } from '../base/units.ts';

/** Longest key that may be written; the server's limit. */
export const KEY_BYTES_MAX: number = 8 * KIB;
/** Longest key and value together; one write must fit into one raft entry. */
export const ENTRY_BYTES_MAX: number = 8 * MIB;
/** Deadline of a call unless the caller gives one. It covers routing, queueing, retries and the network. */
export const TIMEOUT_MS_DEFAULT = 5000;
/** Longest deadline; the platform's timers end there. */
export const TIMEOUT_MS_MAX: number = 2 ** 31 - 1;
export const CONNECT_TIMEOUT_MS_DEFAULT = 5000;
/** How long `close` waits for running calls. */
export const DRAIN_MS_DEFAULT = 5000;

/** Calls accepted and not yet answered, over all stores; one more is refused with `QueueFullError`. */
export const QUEUE_MAX_DEFAULT = 65_536;
/** Commands sent to one store and not yet answered; more of them wait in the client. */
export const IN_FLIGHT_PER_STORE_DEFAULT = 4096;
/** Regions remembered; the least recently used ones give way. */
export const REGION_CACHE_MAX_DEFAULT = 100_000;

/** Commands in one message of the batch stream (the limit that clients and servers of this protocol share). */
export const BATCH_COMMANDS_MAX = 128;
/** A message is closed once its commands carry this many key and value bytes. */
export const BATCH_BYTES_TARGET: number = 1 * MIB;

/** First delay of every exponential backoff. */
export const BACKOFF_BASE_MS = 2;
/** Longest delay between two tries of one call at a region. */
export const REGION_BACKOFF_CAP_MS = 500;
/** Longest delay between two probes of one store or of the placement service. */
export const STORE_BACKOFF_CAP_MS = 1000;
/** Tries without a delay in a row while every answer names a better route. */
export const IMMEDIATE_RETRIES_MAX = 3;

/** Deadline of one health probe, also of the one that precedes the first command to a store. */
export const PROBE_TIMEOUT_MS = 1000;
/** A store that owes answers and sent nothing for this long is probed. */
export const STALL_MS = 1000;
/** Deadline of one try of a routing call at one endpoint of the placement service. */
export const PD_TRY_TIMEOUT_MS = 2000;
/** Deadline of one try of a question to the administration service; its answers may be long. */
export const ADMIN_TRY_TIMEOUT_MS = 4000;
/** Look-ups of unknown regions under way at one time; each brings many regions. */
export const LOOKUPS_MAX = 4;
/** Known regions that are asked for again at one time. */
export const RELOADS_MAX = 16;
/** Regions fetched by one look-up of a key the cache knows nothing about. */
export const LOOKUP_REGIONS = 32;
/** Regions fetched by one page of `regions()`. */
export const REGIONS_PAGE = 256;

/** Entries a scan asks for at a time. */
export const SCAN_PAGE_DEFAULT = 256;
export const SCAN_PAGE_MAX = 10_240;
/** A scan asks for fewer entries after a page with more bytes than this. */
export const SCAN_PAGE_BYTES_TARGET: number = 2 * MIB;

/** Keys in one batch read, and operations in one batch write that is not atomic. */
export const BATCH_KEYS_MAX = 512;
/** Key and value bytes in one batch write that is not atomic. */
export const BATCH_WRITE_BYTES_TARGET: number = 1 * MIB;
/** Sub-requests of one batch call under way at one time. */
export const BATCH_GROUPS_MAX = 64;

/** Longest time the administration service holds the answer to a question about an operator. */
export const OPERATOR_WAIT_MS_MAX = 10_000;

assert(BATCH_BYTES_TARGET <= ENTRY_BYTES_MAX, 'a message target above the entry limit would never close');
assert(SCAN_PAGE_DEFAULT <= SCAN_PAGE_MAX, 'default page above the maximum');
assert(REGION_BACKOFF_CAP_MS <= STORE_BACKOFF_CAP_MS, 'a region must not wait longer than a store');
