//! Lists with weights, as in `Accept` and `Accept-Language`.

/// The members of such a list with their weight in thousandths, in the order written. A weight that makes no sense
/// counts as 1000.
pub fn weighted(header: &str) -> impl Iterator<Item = (&str, u16)> {
    header.split(',').filter_map(|member| {
        let mut parts = member.split(';').map(str::trim);
        let name = parts.next().filter(|name| !name.is_empty())?;
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        Some((name, weight.map_or(1000, thousandths)))
    })
}

fn thousandths(text: &str) -> u16 {
    match text.trim().parse::<f32>() {
        Ok(weight) if (0.0..=1.0).contains(&weight) => (weight * 1000.0).round() as u16,
        Ok(_) | Err(_) => 1000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_carry_their_weight() {
        let members: Vec<_> = weighted("text/html, a/b;level=1;q=0.25 ,, */*;q=0,x;q=wrong").collect();
        assert_eq!(members, [("text/html", 1000), ("a/b", 250), ("*/*", 0), ("x", 1000)]);
    }
}
