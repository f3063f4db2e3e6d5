//! Any body at an endpoint beside text, as JSON or as a form, is answered; what is sent under another name of its model can be
//! read again and asks for the same. Any answer of such an endpoint is read. Any event of a realtime session is read.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use protocol::openai::media::{Endpoint, Request};
use protocol::realtime;

fuzz_target!(|input: &[u8]| {
    for endpoint in Endpoint::ALL {
        for boundary in [None, Some("x")] {
            let Ok(request) = Request::read(endpoint, boundary, input) else { continue };
            let body = Bytes::copy_from_slice(input);
            let sent = request.forward(&body, "another");
            let again = Request::read(endpoint, boundary, &sent).expect("what is sent can be read");
            assert_eq!(again.demand.model, "another");
            assert_eq!((again.demand.choices, again.demand.calls), (request.demand.choices, request.demand.calls));
        }
    }
    if let Ok(text) = std::str::from_utf8(input) {
        _ = realtime::read_client(text);
        _ = realtime::read_server(text);
    }
});
