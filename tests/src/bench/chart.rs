//! A table drawn as SVG: a bar for each ratio to the baseline, on a logarithmic scale, readable on light and on dark pages.

use std::fmt::Write;

use crate::bench::table::{Table, rate_text};

const WIDTH: f64 = 860.0;
/// Where the bars' area begins and ends; names stand left of it, figures right of each bar.
const LEFT: f64 = 220.0;
const RIGHT: f64 = 690.0;
const BAR: f64 = 12.0;
const HEADING: f64 = 40.0;
const BETWEEN_ROWS: f64 = 9.0;
const TOP: f64 = 64.0;

/// Colours by the place of a contender: pond, then the others in the order in which they first come.
const STYLE: &str = "
  text { font: 12px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328 }
  .page { fill: #ffffff; stroke: #d1d9e0 } .grid { stroke: #d1d9e0 } .one { stroke: #59636e; stroke-width: 1.5 }
  .quiet, .figure { fill: #59636e }
  .figure { font-size: 11px; paint-order: stroke; stroke: #ffffff; stroke-width: 3px; stroke-linejoin: round }
  .title { font-size: 15px; font-weight: 600 } .heading { font-weight: 600 }
  .c0 { fill: #0969da } .c1 { fill: #8c959f } .c2 { fill: #bf8700 } .c3 { fill: #8250df } .c4 { fill: #1a7f37 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc } .page { fill: #0d1117; stroke: #3d444d } .grid { stroke: #3d444d } .one { stroke: #9198a1 }
    .quiet, .figure { fill: #9198a1 } .figure { stroke: #0d1117 }
    .c0 { fill: #4493f8 } .c1 { fill: #656c76 } .c2 { fill: #d29922 } .c3 { fill: #ab7df8 } .c4 { fill: #3fb950 }
  }
";

const COLOURS: usize = 5;

/// The picture of all groups, under a title.
pub fn draw(table: &Table, title: &str) -> String {
    let names = legend(table);
    let scale = Scale::of(table);
    let mut body = String::new();
    let mut y = TOP;
    for group in table.groups() {
        y += HEADING;
        text(&mut body, 16.0, y - 16.0, "heading", "start", group.title);
        text(&mut body, RIGHT, y - 16.0, "quiet", "end", &format!("1 = {}", group.baseline));
        let top = y - 8.0;
        let mut bars = String::new();
        for row in table.rows(group) {
            let shown: Vec<(usize, f64, f64)> = names
                .iter()
                .enumerate()
                .filter(|(_, name)| **name != group.baseline)
                .filter_map(|(i, name)| Some((i, table.ratio(row, name)?, table.median(row, name)?)))
                .collect();
            let height = BAR * shown.len() as f64;
            text(&mut bars, LEFT - 10.0, y + height / 2.0 + 4.0, "", "end", row.name);
            for (colour, ratio, rate) in shown {
                let (from, to) = (scale.x(1.0), scale.x(ratio));
                let (x, width) = (from.min(to), (to - from).abs().max(1.0));
                let (class, thick) = (colour % COLOURS, BAR - 2.0);
                let _ = writeln!(
                    bars,
                    r#"<rect class="c{class}" x="{x:.1}" y="{:.1}" width="{width:.1}" height="{thick}" rx="1.5"/>"#,
                    y + 1.0
                );
                let figures = format!("{} · {}", times(ratio), rate_text(rate, row.unit));
                text(&mut bars, from.max(to) + 6.0, y + BAR - 2.0, "figure", "start", &figures);
                y += BAR;
            }
            y += BETWEEN_ROWS;
        }
        scale.grid(&mut body, top, y - 4.0);
        body.push_str(&bars);
        y += 10.0;
    }
    let height = y + 16.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\" aria-labelledby=\"title\">\n<title id=\"title\">{}</title>\n\
         <style>{STYLE}</style>\n<rect class=\"page\" x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"6\"/>\n",
        escape(title),
        WIDTH - 1.0,
        height - 1.0
    );
    text(&mut svg, 16.0, 30.0, "title", "start", title);
    let mut x = 16.0;
    for (i, name) in names.iter().enumerate().filter(|(_, name)| is_drawn(table, name)) {
        let _ =
            writeln!(svg, r#"<rect class="c{}" x="{x}" y="47" width="10" height="10" rx="2"/>"#, i % COLOURS);
        text(&mut svg, x + 15.0, 56.0, "", "start", name);
        x += 40.0 + 7.0 * name.chars().count() as f64;
    }
    text(
        &mut svg,
        RIGHT,
        56.0,
        "quiet",
        "end",
        "rate as a multiple of the baseline's, median of rounds; more is better",
    );
    svg.push_str(&body);
    svg.push_str("</svg>\n");
    svg
}

/// All contenders, pond first.
fn legend(table: &Table) -> Vec<&str> {
    let mut names = vec!["pond"];
    for group in table.groups() {
        for name in table.contenders(group) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    // Who is a baseline everywhere has no bars: no colour is spent on it.
    names.retain(|name| is_drawn(table, name));
    names
}

fn is_drawn(table: &Table, name: &str) -> bool {
    table.groups().iter().any(|group| group.baseline != name && table.contenders(group).contains(&name))
}

/// Where ratios lie: powers of two at equal distances.
struct Scale {
    least: i32,
    most: i32,
}

impl Scale {
    fn of(table: &Table) -> Self {
        let (mut least, mut most) = (-1, 1);
        for group in table.groups() {
            for row in table.rows(group) {
                for ratio in table.contenders(group).iter().filter_map(|name| table.ratio(row, name)) {
                    least = least.min(ratio.log2().floor() as i32);
                    most = most.max(ratio.log2().ceil() as i32);
                }
            }
        }
        Scale { least, most }
    }

    fn x(&self, ratio: f64) -> f64 {
        let part = (ratio.log2() - f64::from(self.least)) / f64::from(self.most - self.least);
        LEFT + part * (RIGHT - LEFT)
    }

    fn grid(&self, svg: &mut String, top: f64, bottom: f64) {
        for power in self.least..=self.most {
            let x = self.x(f64::from(power).exp2());
            let class = if power == 0 { "one" } else { "grid" };
            let _ = writeln!(
                svg,
                r#"<line class="{class}" x1="{x:.1}" x2="{x:.1}" y1="{top:.1}" y2="{bottom:.1}"/>"#
            );
            let label = if power < 0 { format!("1/{}", 1 << -power) } else { format!("{}", 1 << power) };
            text(svg, x, bottom + 13.0, "quiet", "middle", &label);
        }
    }
}

fn times(ratio: f64) -> String {
    if ratio < 9.95 { format!("{ratio:.2}×") } else { format!("{ratio:.1}×") }
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, anchor: &str, words: &str) {
    let _ = writeln!(
        svg,
        r#"<text x="{x:.1}" y="{y:.1}" class="{class}" text-anchor="{anchor}">{}</text>"#,
        escape(words)
    );
}

fn escape(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Group, Row};

    const GROUP: Group = Group { title: "a < b", baseline: "other" };
    const ROW: Row = Row { group: &GROUP, name: "row", unit: "/s" };

    #[test]
    fn bars_reach_from_one_to_the_ratio() {
        let mut table = Table::default();
        table.note("other", [(ROW, 10.0)]);
        table.note("pond", [(ROW, 20.0)]);
        table.note("ext4", [(ROW, 5.0)]);
        let svg = draw(&table, "title");
        let (least, one, most) = (LEFT, (LEFT + RIGHT) / 2.0, RIGHT);
        assert!(svg.contains(&format!(r#"class="c0" x="{one:.1}""#)), "{svg}");
        assert!(svg.contains(&format!(r#"class="c1" x="{least:.1}""#)), "{svg}");
        assert!(svg.contains(&format!(r#"width="{:.1}""#, most - one)), "{svg}");
        assert!(svg.contains("2.00× · 20.0/s") && svg.contains("a &lt; b") && !svg.contains("a < b"));
        assert!(!svg.contains("c2\" x"), "the baseline has no bar");
    }
}
