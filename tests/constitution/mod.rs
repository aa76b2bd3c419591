//! What must hold of the whole, whatever is added to it.

mod callers;
mod folders;
mod packages;
mod readme;
mod schema;
