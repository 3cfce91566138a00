//! The checker of histories, checked: it sees what was planted, accepts what a single register did, and agrees with one that tries all orders.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod brute_force;
mod planted;
mod register;
mod size;

use proof::history::{Answer, Call, Operation, Outcome};

/// Client, key, call, begin; then how it ended.
struct Begun(Operation);

fn begin(client: u64, key: &str, call: Call, invoked: u64) -> Begun {
    Begun(Operation { client, key: key.to_owned(), call, invoked, outcome: Outcome::Unknown })
}

impl Begun {
    fn ok(mut self, at: u64, answer: Answer) -> Operation {
        self.0.outcome = Outcome::Ok { at, answer };
        self.0
    }

    fn refused(mut self, at: u64) -> Operation {
        self.0.outcome = Outcome::Refused { at };
        self.0
    }

    fn unknown(self) -> Operation {
        self.0
    }
}
