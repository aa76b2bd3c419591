//! gRPC and HTTP on one port, told apart by what a request says that it carries.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use axum::Router;
use http::{Request, Response};
use tonic::{body::Body, codegen::Service};

use crate::rpc::Rpc;

/// What every request comes to. Cheap to clone.
#[derive(Clone)]
pub(super) struct Front {
    pub(super) rpc: Rpc,
    pub(super) http: Router,
}

impl Service<Request<Body>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if Rpc::takes(request.headers()) {
            let answer = self.rpc.call(request);
            return Box::pin(async { Ok(answer.await) });
        }
        let answer = self.http.call(request);
        Box::pin(async { Ok(answer.await?.map(Body::new)) })
    }
}
