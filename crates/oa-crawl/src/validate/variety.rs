//! A variety's code from what sites write: `rb2601C3400`, `螺纹2601`, `螺纹钢`, `RB`.

/// Names as sites write them.
#[rustfmt::skip]
const NAMES: [(&str, &str); 113] = [
    ("豆一", "A"), ("黄大豆一号", "A"), ("铝合金", "AD"), ("沪银", "AG"), ("白银", "AG"), ("沪铝", "AL"), ("铝", "AL"),
    ("氧化铝", "AO"), ("苹果", "AP"), ("沪金", "AU"), ("黄金", "AU"), ("豆二", "B"), ("国际铜", "BC"), ("丁二烯胶", "BR"),
    ("丁二烯橡胶", "BR"), ("合成橡胶", "BR"), ("沥青", "BU"), ("纯苯", "BZ"), ("玉米", "C"), ("棉花", "CF"), ("郑棉", "CF"),
    ("红枣", "CJ"), ("淀粉", "CS"), ("玉米淀粉", "CS"), ("沪铜", "CU"), ("铜", "CU"), ("棉纱", "CY"), ("苯乙烯", "EB"),
    ("集运欧线", "EC"), ("集运指数", "EC"), ("乙二醇", "EG"), ("纤维板", "FB"), ("玻璃", "FG"), ("燃油", "FU"), ("燃料油", "FU"),
    ("热卷", "HC"), ("热轧卷板", "HC"), ("铁矿", "I"), ("铁矿石", "I"), ("中证500", "IC"), ("沪深300", "IF"), ("上证50", "IH"),
    ("中证1000", "IM"), ("焦炭", "J"), ("鸡蛋", "JD"), ("焦煤", "JM"), ("塑料", "L"), ("聚乙烯", "L"), ("碳酸锂", "LC"),
    ("原木", "LG"), ("生猪", "LH"), ("低硫燃油", "LU"), ("低硫燃料油", "LU"), ("豆粕", "M"), ("甲醇", "MA"), ("沪镍", "NI"),
    ("镍", "NI"), ("20号胶", "NR"), ("菜油", "OI"), ("菜籽油", "OI"), ("棕榈油", "P"), ("棕榈", "P"), ("沪铅", "PB"), ("铅", "PB"),
    ("短纤", "PF"), ("液化气", "PG"), ("液化石油气", "PG"), ("花生", "PK"), ("丙烯", "PL"), ("聚丙烯", "PP"), ("瓶片", "PR"),
    ("多晶硅", "PS"), ("对二甲苯", "PX"), ("螺纹", "RB"), ("螺纹钢", "RB"), ("菜粕", "RM"), ("菜籽粕", "RM"), ("橡胶", "RU"),
    ("天然橡胶", "RU"), ("纯碱", "SA"), ("原油", "SC"), ("硅铁", "SF"), ("烧碱", "SH"), ("工业硅", "SI"), ("锰硅", "SM"),
    ("沪锡", "SN"), ("锡", "SN"), ("纸浆", "SP"), ("白糖", "SR"), ("不锈钢", "SS"), ("十债", "T"), ("十年国债", "T"), ("PTA", "TA"),
    ("五债", "TF"), ("五年国债", "TF"), ("三十债", "TL"), ("三十年国债", "TL"), ("二债", "TS"), ("二年国债", "TS"), ("尿素", "UR"),
    ("PVC", "V"), ("豆油", "Y"), ("沪锌", "ZN"), ("锌", "ZN"), ("线材", "WR"), ("早籼稻", "RI"), ("强麦", "WH"),
    ("石油沥青", "BU"), ("漂针浆", "SP"), ("中质含硫原油", "SC"), ("铸造铝合金", "AD"), ("双胶纸", "OP"), ("胶版印刷纸", "OP"),
];

/// The code, in upper case: of a known name that ends there or is followed by a month, else of one to three letters in such a
/// place. `None` when it is neither, for a guess would be stored under a wrong code.
pub(crate) fn code(text: &str) -> Option<String> {
    let text = text.trim();
    let upper = text.to_uppercase();
    let ends = |rest: &str| {
        rest.trim_start()
            .chars()
            .next()
            .is_none_or(|c| c.is_ascii_digit())
    };
    let named = NAMES
        .iter()
        .filter(|(name, _)| upper.strip_prefix(name).is_some_and(ends))
        .max_by_key(|(name, _)| name.len());
    if let Some((_, code)) = named {
        return Some((*code).to_owned());
    }
    let letters: String = upper.chars().take_while(char::is_ascii_uppercase).collect();
    ((1..=3).contains(&letters.len()) && ends(&upper[letters.len()..])).then_some(letters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_from_names_and_letters_and_nothing_is_guessed() {
        for (text, due) in [
            ("rb2601C3400", Some("RB")),
            (" RB ", Some("RB")),
            ("m2601-C-3000", Some("M")),
            ("PTA2601C5000", Some("TA")),
            ("PVC", Some("V")),
            ("PP2601", Some("PP")),
            ("螺纹2601C3400", Some("RB")),
            ("螺纹钢", Some("RB")),
            ("玉米淀粉", Some("CS")),
            ("中证10002601C6000", Some("IM")),
            ("20号胶2601", Some("NR")),
            ("低硫燃油 2601", Some("LU")),
            ("铜精矿", None),
            ("2601", None),
            ("", None),
            ("指数", None),
            ("ABCD2601", None),
            ("RB螺纹", None),
        ] {
            assert_eq!(code(text).as_deref(), due, "{text}");
        }
    }

    #[test]
    fn every_name_stands_once() {
        let mut names: Vec<&str> = NAMES.iter().map(|(n, _)| *n).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), NAMES.len());
    }
}
