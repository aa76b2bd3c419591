//! What must hold of the whole, whatever is added to it.
