//! `allow`, `deny`, `cidr_whitelist`: by the client's address.

use std::net::IpAddr;

use crate::model::ClientList;

use super::{super::answer::Answer, chain::Refusal};

pub(super) fn check(list: &ClientList, client: IpAddr) -> Result<(), Refusal> {
    if list.admits(client) {
        return Ok(());
    }
    Err(Refusal::new("its address is not allowed", Answer::new(list.status, list.message.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_told_what_the_list_says() {
        let networks = vec!["10.0.0.0/8".parse().unwrap()];
        let list = ClientList { networks, allows: true, status: 404, message: "nothing here".to_owned() };
        assert!(check(&list, "10.0.0.9".parse().unwrap()).is_ok());
        let answer = check(&list, "192.0.2.1".parse().unwrap()).err().unwrap().answer;
        assert_eq!((answer.status, answer.detail.as_ref()), (404, "nothing here"));
    }
}
