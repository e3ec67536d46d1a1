//! A source ships its commits to a store, replicas are made from it and follow it: what arrives is what was there, whatever
//! goes wrong on the way.
//!
//! `POND_FOLLOW_SECONDS` follows a source for so long (default 6), `POND_KILL_ROUNDS` kills pusher and puller (default 5
//! each), at moments that follow from `POND_KILL_SEED` (default: the time, printed), and `POND_REPLICATE_VERSIONS` is
//! the length of the history whose restore is counted in requests (default 200).

mod bytes;
mod checker;
mod faults;
mod follower;
mod hanging;
mod kills;
mod pair;
mod refusals;
mod scale;
mod sessions;
mod shapes;
mod timelines;
