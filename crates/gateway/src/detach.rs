//! What goes on when whoever waits for it leaves.

use std::pin::Pin;
use std::task::{Context, Poll};

/// A future that goes on by itself when whoever awaits it leaves.
pub(crate) struct OrDetach<T: Send + 'static>(Option<Pin<Box<dyn Future<Output = T> + Send>>>);

impl<T: Send + 'static> OrDetach<T> {
    pub(crate) fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self(Some(Box::pin(future)))
    }
}

impl<T: Send + 'static> Future for OrDetach<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let future = self.0.as_mut().expect("a future is not polled after it is ready");
        let polled = future.as_mut().poll(context);
        if polled.is_ready() {
            self.0 = None;
        }
        polled
    }
}

impl<T: Send + 'static> Drop for OrDetach<T> {
    fn drop(&mut self) {
        // Outside a runtime the process is ending: dropping the future resolves its hold.
        if let (Some(future), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(future);
        }
    }
}
