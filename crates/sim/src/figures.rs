//! An account's figures, and whether everybody who can be asked for them tells the same.
//!
//! A page of examples has a row of figures; the operator's API, the members' API, the command line and the statement each
//! have their own way to them. A test gathers what they say, by whatever way it has to them, and [`Figures::check`] compares.

use domain::Nanos;
use serde_json::Value;

/// What an account has, and how it came to that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// What requests can draw. Nothing is held, and there are no grants.
    pub wallet: Nanos,
    /// What is owed.
    pub owed: Nanos,
    /// Put in in all, less what was taken out.
    pub put_in: Nanos,
    /// Charged for consumption in all.
    pub spent: Nanos,
    /// Of it, paid by a subscription.
    pub by_plan: Nanos,
    /// Paid for subscriptions in all.
    pub fees: Nanos,
}

/// What is said of one account at one time.
#[derive(Clone, Debug)]
pub struct Views {
    /// The account in the operator's API.
    pub operator: Value,
    /// The account in the members' API.
    pub member: Value,
    /// `tollgate ledger balance --json`.
    pub command_line: Value,
    /// The statement since the account's beginning, from everybody who gives one, as JSON.
    pub statements: Vec<Value>,
    /// The same statement as CSV.
    pub tables: Vec<String>,
}

impl Figures {
    /// The figures of an account without a subscription, in USD.
    pub fn of_wallet(wallet: &str, owed: &str, put_in: &str, spent: &str) -> Self {
        let [wallet, owed, put_in, spent] = [wallet, owed, put_in, spent].map(usd);
        Self { wallet, owed, put_in, spent, ..Self::default() }
    }

    /// Panics with the first view that tells other figures than these.
    ///
    /// `step` is what has just happened, in the page's words.
    #[track_caller]
    pub fn check(&self, step: &str, views: &Views) {
        let none = Nanos::ZERO;
        let account = [("balance", self.wallet), ("held", none), ("owed", self.owed), ("spent", self.spent)];
        let in_full = [("granted", none), ("fees", self.fees)];
        told(step, "the operator's API", &views.operator, account.iter().chain(&in_full));
        told(step, "the members' API", &views.member["account"], &account);
        assert_eq!(views.command_line, views.operator, "{step}: `ledger balance`");

        let closing = [
            ("funds", self.wallet),
            ("held", none),
            ("owed", self.owed),
            ("put_in", self.put_in),
            ("spent", self.spent),
            ("by_plan", self.by_plan),
            ("fees", self.fees),
            ("granted", none),
        ];
        let statement = views.statements.first().expect("somebody gives a statement");
        told(step, "the statement's opening", &statement["opening"], &closing.map(|(field, _)| (field, none)));
        told(step, "the statement's closing", &statement["closing"], &closing);
        assert!(views.statements.iter().all(|other| other == statement), "{step}: statements differ: {views:#?}");

        let table = views.tables.first().expect("somebody gives a table");
        assert!(views.tables.iter().all(|other| rows(other).eq(rows(table))), "{step}: tables differ: {views:#?}");
        assert_eq!(Self::sums(table), *self, "{step}: the lines of the table\n{table}");
        let last = rows(table).last().expect("a closing line");
        let [.., funds, _, _, _, _] = &cells(last)[..] else { panic!("{step}: {last}") };
        assert_eq!(*funds, self.wallet.to_string(), "{step}: the table's closing");
    }

    /// What the lines of a statement come to, added up as a reader with a spreadsheet would. Texts with commas are not for it.
    fn sums(table: &str) -> Self {
        let mut sums = Self::default();
        for row in rows(table).skip(1) {
            let [_, _, kind, wallet, granted, by_plan, owed, ..] = cells(row)[..] else { panic!("{row}") };
            if matches!(kind, "opening" | "closing") {
                continue;
            }
            let [wallet, granted, by_plan, owed] = [wallet, granted, by_plan, owed].map(usd);
            let moved = wallet.0 + granted.0 - owed.0;
            sums.wallet.0 += wallet.0 + granted.0;
            sums.owed.0 += owed.0;
            match kind {
                "charge" => {
                    sums.spent.0 += by_plan.0 - moved;
                    sums.by_plan.0 += by_plan.0;
                }
                plan if plan.starts_with("plan_") => sums.fees.0 -= moved,
                _ => sums.put_in.0 += moved,
            }
        }
        sums
    }
}

#[track_caller]
fn told<'a>(step: &str, who: &str, object: &Value, expected: impl IntoIterator<Item = &'a (&'static str, Nanos)>) {
    for (field, amount) in expected {
        assert_eq!(object[*field], amount.to_string(), "{step}: {field} in {who}: {object}");
    }
}

fn rows(table: &str) -> impl Iterator<Item = &str> {
    table.trim_end().lines()
}

fn cells(row: &str) -> Vec<&str> {
    row.split(',').collect()
}

fn usd(text: &str) -> Nanos {
    text.parse().expect("an amount in USD")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::panic::catch_unwind;

    /// An account of which everybody tells that $50.00 were put in, $62.00 spent, and $12.00 are owed.
    fn views() -> Views {
        let account = json!({
            "balance": "0.00", "held": "0.00", "owed": "12.00", "spent": "62.00", "granted": "0.00", "fees": "0.00",
        });
        let standing = |[owed, put_in, spent]: [&str; 3]| {
            json!({
                "funds": "0.00", "held": "0.00", "owed": owed, "put_in": put_in, "spent": spent, "by_plan": "0.00",
                "fees": "0.00", "granted": "0.00",
            })
        };
        let (opening, closing) = (standing(["0.00"; 3]), standing(["12.00", "50.00", "62.00"]));
        let statement = json!({"opening": opening, "closing": closing});
        let table = "entry,at,kind,wallet,granted,by_plan,owed,funds,model,key,tokens,text\r\n\
                     ,t,opening,,,,,0.00,,,,\r\n\
                     1,t,card,50.00,0.00,0.00,0.00,50.00,,,,card\r\n\
                     2,t,charge,-50.00,0.00,0.00,12.00,0.00,m,1,7,\r\n\
                     ,t,closing,,,,,0.00,,,,\r\n";
        Views {
            operator: account.clone(),
            member: json!({"account": account}),
            command_line: account,
            statements: vec![statement.clone(), statement],
            tables: vec![table.to_owned(), table.replace("\r\n", "\n")],
        }
    }

    #[test]
    fn no_view_may_tell_other_figures() {
        let figures = Figures::of_wallet("0.00", "12.00", "50.00", "62.00");
        figures.check("as it is", &views());
        let lies: [fn(&mut Views); 9] = [
            |views| views.operator["balance"] = json!("0.01"),
            |views| views.operator["owed"] = json!("12.000"),
            |views| views.member["account"]["spent"] = json!("61.00"),
            |views| views.command_line["fees"] = json!("1.00"),
            |views| views.statements[0]["closing"]["put_in"] = json!("62.00"),
            |views| views.statements[1]["lines"] = json!([]),
            |views| views.tables.iter_mut().for_each(|table| *table = table.replace("card,50.00", "card,51.00")),
            |views| {
                views.tables.iter_mut().for_each(|table| *table = table.replace("closing,,,,,0.00", "closing,,,,,1.00"))
            },
            |views| views.tables[1].push_str("3,t,reset,0.00,0.00,0.00,0.00,0.00,,,,\n"),
        ];
        for (number, lie) in lies.iter().enumerate() {
            let mut views = views();
            lie(&mut views);
            assert!(catch_unwind(|| figures.check("a lie", &views)).is_err(), "lie {number} is believed");
        }
    }
}
