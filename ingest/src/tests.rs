//! The contract of the public edge over real HTTP, with a log that does what a test wants.

mod click;
mod connection;
mod glued;
mod harness;
mod hostile;
mod postback;
mod refusal;
mod target;
