"""The connector's limits, by name and unit."""

from __future__ import annotations

#: Seconds to resolve and dial a resource.
DIAL_SECONDS = 10.0
#: Seconds a pipe may wait for its first bytes after a client was joined, and for the next flow.
HELLO_SECONDS = 15.0
PIPE_IDLE_SECONDS = 90.0
#: Seconds from the first to the last byte of a frame.
FRAME_SECONDS = 30.0
#: Seconds live flows wait for a fresh grant of their session after the key that signed theirs was withdrawn, or the controller's
#: clock was set ahead of its end.
REGRANT_SECONDS = 5.0
#: Seconds a control pipe may be silent: longer than any grant lives, and so than a client waits with the next one.
CONTROL_IDLE_SECONDS = 3_700.0
#: Seconds for which what a client still sends is read away after its flow was refused, so that it hears why.
REFUSED_SECONDS = 2.0
#: Messages of one session's control pipes, at once and a second after that; a longer one counts once more for each of so many
#: bytes: the grants of thousands of resources take a quarter of a second to be looked through.
CONTROL_BURST, CONTROL_PER_SECOND = 1_000, 200.0
CONTROL_UNIT_BYTES = 4_096
#: Seconds a UDP association lives without a datagram.
DATAGRAM_IDLE_SECONDS = 120.0
#: Seconds an ICMP flow lives without an echo (RFC 5508: at least 60), and its echo requests: at once, and a second after that.
ECHO_IDLE_SECONDS = 60.0
ECHO_BURST, ECHOES_PER_SECOND = 200, 100.0
#: Seconds without a sealed datagram of the client after which a session's datagram path is closed.
DATAGRAM_PATH_SILENT_SECONDS = 60.0
#: Seconds to bind an address at a relay's UDP port, after which a session's datagrams stay frames.
BIND_SECONDS = 5.0
#: Idle connections kept at each relay.
MIN_IDLE, MAX_IDLE = 4, 256
#: Links, and live flows, of all clients. No account has more links than are free, and a session's oldest gives way.
MAX_LINKS = 20_000
MAX_LINKS_PER_SESSION = 8
MAX_FLOWS = 50_000
#: Pipes of all clients (fewer where fewer files may be open), of a session, and of a session while they wait for a flow.
MAX_PIPES = 65_536
MAX_PIPES_PER_SESSION = 10_240
MAX_RESTING_PIPES_PER_SESSION = 288
#: Connections of one relay that were joined with a client which has proved nothing yet; the oldest gives way.
MAX_UNPROVEN = 512
#: Connections at the connector's own listener without a proof, of all and of one address; the oldest (of the biggest) gives way.
#: A client's warm pipes are among them until their first flow, and many clients may share an address.
MAX_DIRECT_UNPROVEN = 512
MAX_DIRECT_UNPROVEN_PER_SOURCE = 128
#: Connections accepted of one address: so many at once, and so many a second after that.
DIRECT_BURST, DIRECT_PER_SECOND = 400, 100.0
#: Addresses a connector tells where it listens.
MAX_DIRECT_ADDRESSES = 8
#: Meetings with clients behind NATs under way; punched connections that wait for a client's first bytes, of all and of one
#: address (the oldest of the biggest gives way), and for how many seconds.
MAX_PUNCHES = 16
MAX_PUNCHED_WAITING, MAX_PUNCHED_PER_SOURCE = 512, 64
PUNCHED_IDLE_SECONDS = 300.0
#: Files kept free for the state, the channel, names and waiting connections. A pipe takes one file, its flow another.
SPARE_DESCRIPTORS = 128
#: Events in one batch (as many as a controller takes), batches and their bytes on disk, and seconds between batches.
BATCH_EVENTS = 1_000
MAX_SPOOLED_BATCHES, MAX_SPOOLED_BYTES = 2_000, 128 << 20
#: Events that may wait for the disk; further ones are lost, aloud.
MAX_COLLECTED_EVENTS = 20_000
#: Batches on disk that are kept in memory as well until they are sent.
MAX_FRESH_BATCHES = 4
BATCH_SECONDS = 1.0
#: Names looked up at a time, for all and per account; names of an account that wait for that.
MAX_LOOKUPS = 64
LOOKUPS_PER_ACCOUNT = 4
MAX_WAITING_LOOKUPS = 256
#: Seconds for which a name nobody knew is not asked for again, and names for which that is remembered.
UNKNOWN_NAME_SECONDS = 2.0
MAX_UNKNOWN_NAMES = 10_000
#: Questions of clients for other records of names: at a time for all and per session, so many of a session at once, and a second.
MAX_NAME_QUESTIONS = 64
NAME_QUESTIONS_PER_SESSION = 16
NAME_QUESTIONS_BURST, NAME_QUESTIONS_PER_SECOND = 100, 20.0
#: Seconds for one resolver to answer such a question, for all of them together, and resolvers asked.
RESOLVER_SECONDS = 2.0
NAME_QUESTION_SECONDS = 4.0
MAX_RESOLVERS = 3
#: Account buckets kept; the least recently used go first.
MAX_BUCKETS = 10_000
#: Seconds for live flows at a stop, by default and at the most; and for clients to hear of it before nobody waits for them.
DRAIN_SECONDS, MAX_DRAIN_SECONDS = 30.0, 86_400
LEAVE_SECONDS = 0.5
