//! Tables: columns of the width they need.

use super::{
    output::{Output, Tone},
    trouble::Trouble,
};

/// Rows of cells below their heads.
#[derive(Debug)]
pub(super) struct Table {
    heads: Vec<&'static str>,
    rows: Vec<Vec<(String, Tone)>>,
}

impl Table {
    pub(super) fn new(heads: &[&'static str]) -> Self {
        Self { heads: heads.to_vec(), rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: Vec<(String, Tone)>) {
        self.rows.push(cells);
    }

    pub(super) fn print(&self, output: &Output) -> Result<(), Trouble> {
        self.lines(&|text, tone| output.paint(text, tone)).iter().try_for_each(|line| output.line(line))
    }

    fn lines(&self, paint: &dyn Fn(&str, Tone) -> String) -> Vec<String> {
        let heads: Vec<(String, Tone)> = self.heads.iter().map(|head| ((*head).to_owned(), Tone::Quiet)).collect();
        let all = || std::iter::once(&heads).chain(&self.rows);
        let width = |column: usize| {
            let cells = all().filter_map(|row| row.get(column));
            cells.map(|(text, _)| text.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.heads.len()).map(width).collect();
        let line = |row: &Vec<(String, Tone)>| {
            let mut line = String::new();
            let mut gap = 0;
            for ((text, tone), width) in row.iter().zip(&widths) {
                line.push_str(&" ".repeat(gap));
                line.push_str(&paint(text, *tone));
                gap = width - text.chars().count() + 2;
            }
            line.trim_end().to_owned()
        };
        all().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other_whatever_the_colours() {
        let mut table = Table::new(&["NAME", "STATE", "FOR"]);
        table.row(vec![("local/ä".into(), Tone::Plain), ("awake".into(), Tone::Good), ("5 s".into(), Tone::Plain)]);
        table.row(vec![("b".into(), Tone::Plain), ("asleep".into(), Tone::Quiet), (String::new(), Tone::Plain)]);
        let plain = table.lines(&|text, _| text.to_owned());
        assert_eq!(plain, ["NAME     STATE   FOR", "local/ä  awake   5 s", "b        asleep"]);
        let painted = table.lines(&|text, tone| if tone == Tone::Good { format!("<{text}>") } else { text.to_owned() });
        assert_eq!(painted[1], "local/ä  <awake>   5 s");
    }
}
