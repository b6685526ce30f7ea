//! Varieties and a seeded generator.

use chrono::{Datelike, NaiveDate, Weekday};

/// Code, Chinese name, sector.
pub const VARIETIES: [(&str, &str, &str); 75] = [
    ("A", "豆一", "油脂油料"),
    ("AD", "铝合金", "有色"),
    ("AG", "沪银", "贵金属"),
    ("AL", "沪铝", "有色"),
    ("AO", "氧化铝", "有色"),
    ("AP", "苹果", "软商品"),
    ("AU", "沪金", "贵金属"),
    ("B", "豆二", "油脂油料"),
    ("BC", "国际铜", "有色"),
    ("BR", "丁二烯胶", "能化"),
    ("BU", "沥青", "能化"),
    ("BZ", "纯苯", "能化"),
    ("C", "玉米", "谷物"),
    ("CF", "棉花", "软商品"),
    ("CJ", "红枣", "软商品"),
    ("CS", "淀粉", "谷物"),
    ("CU", "沪铜", "有色"),
    ("CY", "棉纱", "软商品"),
    ("EB", "苯乙烯", "能化"),
    ("EC", "集运欧线", "航运"),
    ("EG", "乙二醇", "能化"),
    ("FB", "纤维板", "建材"),
    ("FG", "玻璃", "建材"),
    ("FU", "燃油", "能化"),
    ("HC", "热卷", "黑色"),
    ("I", "铁矿", "黑色"),
    ("IC", "中证500", "股指"),
    ("IF", "沪深300", "股指"),
    ("IH", "上证50", "股指"),
    ("IM", "中证1000", "股指"),
    ("J", "焦炭", "黑色"),
    ("JD", "鸡蛋", "农副"),
    ("JM", "焦煤", "黑色"),
    ("L", "塑料", "能化"),
    ("LC", "碳酸锂", "新能源"),
    ("LG", "原木", "建材"),
    ("LH", "生猪", "农副"),
    ("LU", "低硫燃油", "能化"),
    ("M", "豆粕", "油脂油料"),
    ("MA", "甲醇", "能化"),
    ("NI", "沪镍", "有色"),
    ("NR", "20号胶", "能化"),
    ("OI", "菜油", "油脂油料"),
    ("P", "棕榈油", "油脂油料"),
    ("PB", "沪铅", "有色"),
    ("PF", "短纤", "能化"),
    ("PG", "液化气", "能化"),
    ("PK", "花生", "油脂油料"),
    ("PL", "丙烯", "能化"),
    ("PP", "聚丙烯", "能化"),
    ("PR", "瓶片", "能化"),
    ("PS", "多晶硅", "新能源"),
    ("PX", "对二甲苯", "能化"),
    ("RB", "螺纹", "黑色"),
    ("RM", "菜粕", "油脂油料"),
    ("RU", "橡胶", "能化"),
    ("SA", "纯碱", "能化"),
    ("SC", "原油", "能化"),
    ("SF", "硅铁", "黑色"),
    ("SH", "烧碱", "能化"),
    ("SI", "工业硅", "新能源"),
    ("SM", "锰硅", "黑色"),
    ("SN", "沪锡", "有色"),
    ("SP", "纸浆", "软商品"),
    ("SR", "白糖", "软商品"),
    ("SS", "不锈钢", "有色"),
    ("T", "十债", "国债"),
    ("TA", "PTA", "能化"),
    ("TF", "五债", "国债"),
    ("TL", "三十债", "国债"),
    ("TS", "二债", "国债"),
    ("UR", "尿素", "能化"),
    ("V", "PVC", "能化"),
    ("Y", "豆油", "油脂油料"),
    ("ZN", "沪锌", "有色"),
];

/// A small generator (splitmix64): the same seed gives the same numbers on every machine.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// One generator per seed and whatever else distinguishes it.
    #[must_use]
    pub fn new(seed: u64, parts: &[u64]) -> Self {
        let mut rng = Self(seed ^ 0x6f61_7369_6d00_0000);
        for part in parts {
            rng.0 = rng.next().wrapping_add(*part);
        }
        rng
    }

    #[allow(
        clippy::should_implement_trait,
        reason = "it never ends and is no iterator"
    )]
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// A number between two bounds, both included, with two decimals.
    pub fn decimal(&mut self, low: i64, high: i64) -> f64 {
        let span = (high - low).unsigned_abs() * 100 + 1;
        let cents = low * 100 + i64::try_from(self.below(span)).unwrap_or_default();
        cents as f64 / 100.0
    }

    /// One of several.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let i = self.below(from.len() as u64);
        &from[usize::try_from(i).unwrap_or_default()]
    }
}

/// A day as a number for [`Rng::new`].
#[must_use]
pub fn day_number(day: NaiveDate) -> u64 {
    u64::from(day.num_days_from_ce().unsigned_abs())
}

/// Saturday or Sunday.
#[must_use]
pub fn is_weekend(day: NaiveDate) -> bool {
    matches!(day.weekday(), Weekday::Sat | Weekday::Sun)
}

/// A percentage with two decimals, as the sites give it.
#[must_use]
pub fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        (part as f64 * 10_000.0 / whole as f64).round() / 100.0
    }
}
