//! Curves as SVG: a small chart for each figure, all axes from zero, so that what does not grow with the number of Pods is flat.

use std::fmt::Write as _;

use crate::growth::{Curve, Curves};
use crate::report::number;

/// Charts in a row.
const ACROSS: usize = 3;
/// A chart with what is written around it.
const WIDTH: f64 = 330.0;
const HEIGHT: f64 = 200.0;
/// The field of the curve in it.
const LEFT: f64 = 20.0;
const TOP: f64 = 45.0;
const FIELD: (f64, f64) = (280.0, 115.0);

/// All curves in one picture.
pub(crate) fn draw(curves: &Curves) -> String {
    let rows = curves.len().div_ceil(ACROSS);
    let (width, height) = (WIDTH * ACROSS as f64, HEIGHT * rows as f64);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"10\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (place, (name, curve)) in curves.iter().enumerate() {
        let (x, y) = (WIDTH * (place % ACROSS) as f64, HEIGHT * (place / ACROSS) as f64);
        // Writing to a string does not fail.
        let _ = writeln!(svg, "<g transform=\"translate({x} {y})\">\n{}</g>", chart(name, curve));
    }
    svg.push_str("</svg>\n");
    svg
}

fn chart(name: &str, curve: &Curve) -> String {
    let (benchmark, figure) = name.rsplit_once(": ").unwrap_or(("", name));
    let mut svg = format!(
        "<text x=\"{LEFT}\" y=\"16\" fill=\"#555\">{}</text>\n<text x=\"{LEFT}\" y=\"30\" font-weight=\"bold\">{}</text>\n\
         <path d=\"M{LEFT} {TOP}v{}h{}\" fill=\"none\" stroke=\"#999\"/>\n",
        escape(benchmark),
        escape(figure),
        FIELD.1,
        FIELD.0
    );
    let most = |values: &mut dyn Iterator<Item = f64>| {
        values.filter(|value| value.is_finite()).fold(f64::MIN_POSITIVE, f64::max)
    };
    let (right, top) = (most(&mut curve.keys().map(|size| f64::from(*size))), most(&mut curve.values().copied()));
    let points: Vec<(f64, f64, u32, f64)> = curve
        .iter()
        .filter(|(_, value)| value.is_finite())
        .map(|(size, value)| {
            let x = LEFT + FIELD.0 * f64::from(*size) / right;
            (x, TOP + FIELD.1 * (1.0 - (value / top).max(0.0)), *size, *value)
        })
        .collect();
    let line: Vec<String> = points.iter().map(|(x, y, ..)| format!("{x:.1},{y:.1}")).collect();
    let _ =
        writeln!(svg, "<polyline points=\"{}\" fill=\"none\" stroke=\"#1f6feb\" stroke-width=\"2\"/>", line.join(" "));
    for (x, y, size, value) in points {
        let _ = writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"#1f6feb\"/><text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555\">{size}</text>",
            y - 6.0,
            number(value),
            TOP + FIELD.1 + 14.0
        );
    }
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_figure_has_a_point_at_each_size_and_the_largest_is_at_the_top() {
        let curve = Curve::from([(1000, 5.0), (2000, 10.0)]);
        let svg = draw(&vec![("density: a < b: KiB/Pod".into(), curve.clone()), ("idle".into(), curve)]);
        assert_eq!((svg.matches("<circle").count(), svg.matches("<polyline").count()), (4, 2));
        assert!(svg.contains("points=\"160.0,102.5 300.0,45.0\""), "{svg}");
        assert!(svg.contains("density: a &lt; b</text>") && svg.contains(">KiB/Pod</text>"), "{svg}");
    }
}
