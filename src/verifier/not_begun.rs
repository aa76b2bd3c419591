//! How a client learns that its call was refused before the method began, so that it may be made again.
//!
//! The client gives each call an id, and who refuses it ahead of its method says the id back. A status alone does not
//! tell: a method may have done its work and then answer UNAUTHENTICATED, or pass on what another service answered it.

use http::{HeaderMap, HeaderValue};

/// The call's id, in a request.
const CALL: &str = "tessera-call";
/// The id of the call that was not begun, in a response.
const NOT_BEGUN: &str = "tessera-not-begun";
/// The longest id that is said back, in bytes.
const LONGEST: usize = 64;

/// The id of one call.
pub(super) fn new_call() -> HeaderValue {
    // It only has to differ from those of calls that this one leads to.
    fastrand::u64(..).into()
}

/// Names a call.
pub(super) fn name(request: &mut HeaderMap, call: &HeaderValue) {
    request.insert(CALL, call.clone());
}

/// Whether it says that this very call was not begun.
pub(super) fn was_refused(response: &HeaderMap, call: &HeaderValue) -> bool {
    response.get(NOT_BEGUN) == Some(call)
}

/// Says of the call with these headers that it was not begun.
pub fn refused(request: &HeaderMap, response: &mut HeaderMap) {
    if let Some(call) = request.get(CALL).filter(|call| call.len() <= LONGEST) {
        response.insert(NOT_BEGUN, call.clone());
    }
}

/// Lets a call in: from now on nobody can say that it was not begun, also where the method passes its headers on.
pub(super) fn let_in(request: &mut HeaderMap) {
    request.remove(CALL);
}
