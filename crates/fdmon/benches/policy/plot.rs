//! The plots: latency plus CPU time an event, against the gap.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

use crate::cell::Contender;
use crate::traffic::{Shape, Sources};

/// One line of a plot: gap and total, both in µs.
pub type Line = Vec<(f64, f64)>;

const COLOURS: [RGBColor; 6] = [
    RGBColor(0x77, 0x77, 0x77),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x00, 0x72, 0x50),
    RGBColor(0xd5, 0x5e, 0x00),
];
/// Every contender but the one that has a goal of its own.
const SHOWN: usize = 6;

/// A row of plots a kind of source, a column a shape of the gaps.
pub fn draw(
    path: &Path,
    title: &str,
    line: impl Fn(Shape, Sources, Contender) -> Line,
) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(path, (1400, 1000)).into_drawing_area();
    root.fill(&WHITE)?;
    let root = root.titled(title, ("sans-serif", 22))?;
    let (plots, legend) = root.split_vertically(930);
    let panes = plots.split_evenly((Sources::ALL.len(), Shape::ALL.len()));
    let mut panes = panes.iter();
    for sources in Sources::ALL {
        for shape in Shape::ALL {
            let Some(pane) = panes.next() else { break };
            let lines: Vec<Line> =
                Contender::ALL[..SHOWN].iter().map(|&c| line(shape, sources, c)).collect();
            let points = || lines.iter().flatten();
            let widest = points().map(|(x, _)| *x).fold(1.0, f64::max);
            let highest = points().map(|(_, y)| *y).fold(1.0, f64::max) * 1.05;
            let mut chart = ChartBuilder::on(pane)
                .caption(format!("{}, {}", shape.as_str(), sources.as_str()), ("sans-serif", 15))
                .margin(8)
                .x_label_area_size(32)
                .y_label_area_size(44)
                .build_cartesian_2d(0.0..widest, 0.0..highest)?;
            chart
                .configure_mesh()
                .x_desc("mean gap, µs")
                .y_desc("latency + CPU, µs")
                .light_line_style(TRANSPARENT)
                .draw()?;
            for (points, colour) in lines.into_iter().zip(COLOURS) {
                chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
            }
        }
    }
    for (place, (contender, colour)) in Contender::ALL[..SHOWN].iter().zip(COLOURS).enumerate() {
        let x = 60 + i32::try_from(place)? * 200;
        legend.draw(&PathElement::new([(x, 25), (x + 40, 25)], colour.stroke_width(3)))?;
        let font = ("sans-serif", 17).into_font();
        legend.draw(&Text::new(contender.as_str(), (x + 48, 16), font))?;
    }
    root.present()?;
    Ok(())
}
