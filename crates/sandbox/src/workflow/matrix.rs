//! `strategy.matrix`: the product of its lists, then `include`, by GitHub's rules.

use super::Combination;

/// Lays out a matrix. An `include` entry extends every combination whose original values it does
/// not contradict; if there is none, it is a combination of its own.
pub(super) fn combinations(
    axes: &[(String, Vec<String>)],
    include: &[Combination],
) -> Vec<Combination> {
    let mut product = vec![Combination::new()];
    for (axis, values) in axes {
        product = product
            .iter()
            .flat_map(|partial| {
                values.iter().map(move |value| {
                    let mut next = partial.clone();
                    next.insert(axis.clone(), value.clone());
                    next
                })
            })
            .collect();
    }
    if axes.is_empty() {
        product.clear();
    }
    let original = product.clone();
    let mut own = Vec::new();
    for entry in include {
        let agrees = |base: &Combination| {
            entry.iter().all(|(key, value)| base.get(key).is_none_or(|there| there == value))
        };
        let mut extended = false;
        for (base, combination) in original.iter().zip(&mut product) {
            if agrees(base) {
                combination.extend(entry.clone());
                extended = true;
            }
        }
        if !extended {
            own.push(entry.clone());
        }
    }
    product.extend(own);
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    fn combination(text: &str) -> Combination {
        text.split_whitespace()
            .map(|pair| pair.split_once('=').unwrap())
            .map(|(key, value)| (key.into(), value.into()))
            .collect()
    }

    fn check(axes: &[(&str, &str)], include: &[&str], expected: &[&str]) {
        let axes: Vec<_> = axes
            .iter()
            .map(|(axis, values)| {
                ((*axis).into(), values.split_whitespace().map(Into::into).collect())
            })
            .collect();
        let include: Vec<_> = include.iter().map(|entry| combination(entry)).collect();
        let expected: Vec<_> = expected.iter().map(|entry| combination(entry)).collect();
        assert_eq!(combinations(&axes, &include), expected);
    }

    #[test]
    fn lists_multiply_in_the_order_they_are_written() {
        check(&[("b", "1 2"), ("a", "x y")], &[], &["b=1 a=x", "b=1 a=y", "b=2 a=x", "b=2 a=y"]);
    }

    // The example of GitHub's documentation of `include`.
    #[test]
    fn include_extends_what_it_does_not_contradict() {
        check(
            &[("fruit", "apple pear"), ("animal", "cat dog")],
            &[
                "color=green",
                "color=pink animal=cat",
                "fruit=apple shape=circle",
                "fruit=banana",
                "fruit=banana animal=cat",
            ],
            &[
                "fruit=apple animal=cat color=pink shape=circle",
                "fruit=apple animal=dog color=green shape=circle",
                "fruit=pear animal=cat color=pink",
                "fruit=pear animal=dog color=green",
                "fruit=banana",
                "fruit=banana animal=cat",
            ],
        );
    }

    #[test]
    fn include_alone_is_a_list() {
        check(&[], &["a=1", "a=2"], &["a=1", "a=2"]);
    }
}
