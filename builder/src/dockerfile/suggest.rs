//! "Did you mean …?"

/// The candidate that is closest to `word`, where one is close enough to be what was meant.
pub(crate) fn closest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let word = word.to_ascii_lowercase();
    // Nobody mistypes a long word into a known one, and the table below is quadratic.
    if word.len() > 40 {
        return None;
    }
    let limit = if word.len() <= 3 { 1 } else { 2 };
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// The number of characters to insert, delete, replace or swap with a neighbour to make `b` from `a`.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_words_are_suggested() {
        let names = ["ADD", "COPY", "ENTRYPOINT", "RUN"];
        let cases = [
            ("RNU", Some("RUN")),
            ("copyy", Some("COPY")),
            ("ENTRPOINTT", Some("ENTRYPOINT")),
            ("FETCH", None),
            ("", None),
            ("ADDENDUM", None),
        ];
        for (word, expected) in cases {
            assert_eq!(closest(word, names), expected, "{word}");
        }
        assert_eq!(closest(&"x".repeat(60_000), names), None);
    }
}
