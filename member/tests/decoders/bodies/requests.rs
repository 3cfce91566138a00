//! What raft asks of the member daemon.

use member::rpc::MemberServiceRequest;
use member::seeds::Seed;
use member::swim::Tags;
use tarpc::ClientMessage;

use super::frames::{request, request_frame};

/// A frame. Seeds and tags in it are judged as the server judges them.
pub(crate) fn requests(frame: &[u8]) -> bool {
    match request::<MemberServiceRequest>(frame) {
        Some(ClientMessage::Request(request)) => judge(&request.message),
        Some(_) => {}
        None => return false,
    }
    true
}

fn judge(request: &MemberServiceRequest) {
    match request {
        MemberServiceRequest::Join { seeds } => seeds.iter().for_each(|text| judge_seed(text)),
        MemberServiceRequest::SetTags { tags } => {
            if tags.check().is_ok() {
                assert!(postcard::to_stdvec(tags).unwrap().len() < 1000, "it fits into a datagram");
            }
        }
        MemberServiceRequest::Identity {}
        | MemberServiceRequest::Watch { .. }
        | MemberServiceRequest::Leave {} => {}
    }
}

fn judge_seed(text: &str) {
    match text.parse::<Seed>() {
        Ok(seed) => assert_eq!(seed.to_string().parse(), Ok(seed)),
        Err(error) => assert!(error.shown.chars().count() <= 64, "an error is bounded"),
    }
}

pub(crate) fn request_seeds() -> Vec<Vec<u8>> {
    let seeds = ["host:6001", "[::1]:80", "10.0.0.1:0", "no port"].map(str::to_owned).to_vec();
    let tags = Tags {
        cluster: Some(1),
        node: Some(2),
        raft_address: "host:6004".to_owned(),
        http_address: "host:6003".to_owned(),
        role: "voter".to_owned(),
        version: "0.1.0".to_owned(),
    };
    let requests = [
        MemberServiceRequest::Identity {},
        MemberServiceRequest::Watch { since: 9 },
        MemberServiceRequest::Join { seeds },
        MemberServiceRequest::Leave {},
        MemberServiceRequest::SetTags { tags },
    ];
    requests.iter().map(|message| request_frame(1, message)).collect()
}
