//! The service from outside: a real server on a real database, over a socket.

mod constitution;
mod stories;
mod support;
