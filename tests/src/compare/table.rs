//! What was measured, as a table.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Builder, Measurement, Workload};

/// A table in Markdown: for each workload and builder the median of each figure, the range of the times, and how they relate to
/// BuildKit's where that was measured, too.
pub fn table(measurements: &[Measurement]) -> String {
    let mut groups: BTreeMap<(Workload, Builder), Vec<&Measurement>> = BTreeMap::new();
    for measurement in measurements {
        groups.entry((measurement.workload, measurement.builder)).or_default().push(measurement);
    }
    let mut text = "| workload | builder | wall s | from - to | x BuildKit | CPU s | own MB | all MB |\n\
        |---|---|--:|--:|--:|--:|--:|--:|\n"
        .to_owned();
    let workloads: BTreeSet<_> = groups.keys().map(|(workload, _)| *workload).collect();
    for workload in workloads {
        let reference = groups.get(&(workload, Builder::BuildKit)).map(|of| median(of, wall));
        for ((_, builder), of) in groups.range((workload, Builder::InPlace)..=(workload, Builder::BuildKit)) {
            let time = median(of, wall);
            let [least, most] = range(of);
            let ratio = reference.map_or("-".to_owned(), |reference| format!("{:.2}", time / reference));
            let processors = median(of, |m| seconds(m.cost.processors));
            let own = median(of, |m| m.cost.own_memory as f64 / 1e6);
            let is_known = of.iter().all(|m| m.cost.all_memory.is_some());
            let all = median(of, |m| m.cost.all_memory.unwrap_or_default() as f64 / 1e6);
            let all = if is_known { format!("{all:.0}") } else { "-".to_owned() };
            text += &format!(
                "| {} | {} | {time:.2} | {least:.2} - {most:.2} | {ratio} | {processors:.1} | {own:.0} | {all} |\n",
                workload.name(),
                builder.name(),
            );
        }
    }
    text
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

fn wall(measurement: &Measurement) -> f64 {
    seconds(measurement.cost.wall)
}

/// The middle one, or the mean of the middle two. Groups have at least one.
fn median(of: &[&Measurement], value: impl Fn(&Measurement) -> f64) -> f64 {
    let mut values: Vec<f64> = of.iter().map(|measurement| value(measurement)).collect();
    values.sort_by(f64::total_cmp);
    f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2])
}

fn range(of: &[&Measurement]) -> [f64; 2] {
    let walls = || of.iter().map(|measurement| wall(measurement));
    [walls().fold(f64::INFINITY, f64::min), walls().fold(0.0, f64::max)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Cost;

    fn measured(builder: Builder, wall: u64, all_memory: Option<u64>) -> Measurement {
        let wall = Duration::from_secs(wall);
        let cost = Cost { wall, processors: wall * 2, own_memory: 30_000_000, all_memory };
        Measurement { workload: Workload::Stages, builder, cost }
    }

    #[test]
    fn medians_ranges_and_ratios() {
        let of = [
            measured(Builder::BuildKit, 8, None),
            measured(Builder::Overlay, 3, Some(50_000_000)),
            measured(Builder::Overlay, 9, Some(70_000_000)),
            measured(Builder::Overlay, 4, Some(60_000_000)),
            measured(Builder::BuildKit, 12, Some(1)),
        ];
        let table = table(&of);
        let lines: Vec<_> = table.lines().skip(2).collect();
        assert_eq!(lines[0], "| stages | overlay | 4.00 | 3.00 - 9.00 | 0.40 | 8.0 | 30 | 60 |");
        assert_eq!(lines[1], "| stages | buildkit | 10.00 | 8.00 - 12.00 | 1.00 | 20.0 | 30 | - |");
        assert!(super::table(&of[1..2]).contains("| 3.00 - 3.00 | - |"));
    }
}
