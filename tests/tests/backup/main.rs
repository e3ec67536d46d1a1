//! `pond backup …`: what a store tells by itself, without a pond.

mod damage;
mod finding;
mod looking;
mod restoring;
mod scene;
mod servers;
