//! Everything that stands outside of braces.

use super::{Parsed, Parser, Reported};
use crate::Span;
use crate::ast::{Address, Block, Decl, File, Group, Name, Pair, Redirect, Rule, VmItem, ZoneDecl};
use crate::lex::Kind;
use crate::literal;
use crate::words::{DECLARATIONS, VERDICTS, did_you_mean};
use rules::Uplink;

impl<'a> Parser<'a, '_> {
    pub(super) fn declaration(&mut self, file: &mut File<'a>) -> Parsed<()> {
        let start = self.peek();
        if start.kind == Kind::Mark(';') {
            self.next();
            return Ok(());
        }
        match start.text {
            "zone" => file.zones.push(self.zone()?),
            "vm" => {
                let (name, items) = self.named_list(Self::vm_item);
                file.vms.push(Decl { name: name?, items });
            }
            "set" => {
                let (name, items) = self.named_list(Self::addresses);
                file.sets.push(Decl { name: name?, items: items.into_iter().flatten().collect() });
            }
            "service" => {
                self.next();
                let name = self.name("the name of the service")?;
                let items = self.want('=').and_then(|_| self.kinds()).unwrap_or_else(|Reported| {
                    self.skip_to_declaration();
                    Vec::new()
                });
                file.services.push(Decl { name, items });
            }
            "group" => file.groups.push(self.group()?),
            "policy" => file.blocks.push(self.policy()?),
            "nat" => file.nats.push(self.nat()?),
            "redirect" => file.redirects.push(self.redirect()?),
            "route" => file.routes.push(self.route()?),
            "syslog" => file.syslogs.push(self.syslog()?),
            "timeout" => file.timeouts.push(self.timeout()?),
            "flows" => file.flow_limits.push(self.flow_limit()?),
            "expect" => file.expects.push(self.expect()?),
            word => {
                let in_block = VERDICTS.contains(&word);
                self.next_is_no_declaration(in_block);
                return Err(Reported);
            }
        }
        Ok(())
    }

    fn next_is_no_declaration(&mut self, in_block: bool) {
        let word = self.peek().text;
        let more = self.unexpected("a declaration");
        if in_block {
            more.help("rules stand in a block: `policy clients -> uplink { … }`");
        } else {
            more.maybe_help(did_you_mean(word, DECLARATIONS));
        }
        // Were it left there, the next declaration would be looked for at this very word.
        self.next();
    }

    fn zone(&mut self) -> Parsed<ZoneDecl<'a>> {
        self.next();
        let name = self.name("the name of the zone")?;
        let zone = self.want('=').and_then(|_| self.device());
        if zone.is_err() {
            self.skip_to_declaration();
        }
        Ok(ZoneDecl { name, zone: zone.ok() })
    }

    fn device(&mut self) -> Parsed<rules::Zone> {
        if self.eat_word("netback") {
            return Ok(rules::Zone::Clients);
        }
        let word = self.peek().text;
        if !self.eat_word("netfront") {
            self.expected("`netfront 0` or `netback`")
                .maybe_help(did_you_mean(word, ["netfront", "netback"]));
            return Err(Reported);
        }
        let index = self.peek();
        if index.kind != Kind::Word || !literal::is_numeric(index.text) {
            self.expected("the number of the interface, such as `0`");
            return Err(Reported);
        }
        self.next();
        let Some(uplink) = index.text.parse().ok().and_then(Uplink::new) else {
            let message = format!("there is no netfront {}", index.text);
            self.report
                .error("not-supported", message, index.span, "")
                .help("there are up to four uplinks: `netfront 0` to `netfront 3`");
            return Err(Reported);
        };
        Ok(rules::Zone::Uplink(uplink))
    }

    /// `KEYWORD NAME = ITEM, …`, with brackets around the items or without. If the items are not
    /// understood, the name still stands, and the parser goes on at the next declaration.
    fn named_list<T>(
        &mut self,
        item: impl FnMut(&mut Self) -> Parsed<T>,
    ) -> (Parsed<Name<'a>>, Vec<T>) {
        let keyword = self.next().text;
        let name = self.name(&format!("the name of the {keyword}"));
        if name.is_err() {
            return (name, Vec::new());
        }
        let items = self.want('=').and_then(|_| self.comma_list(item));
        let items = items.unwrap_or_else(|Reported| {
            self.skip_to_declaration();
            Vec::new()
        });
        (name, items)
    }

    /// `ITEM, ITEM`, where each item may be a list in brackets.
    fn comma_list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        let mut items = self.one_or_list(&mut item)?;
        while self.eat(',') {
            items.extend(self.one_or_list(&mut item)?);
        }
        Ok(items)
    }

    fn vm_item(&mut self) -> Parsed<VmItem> {
        if !self.eat_word("mac") {
            return self.address().map(VmItem::Address);
        }
        let token = self.next();
        match literal::mac(token.text) {
            Ok(mac) => Ok(VmItem::Mac(mac, token.span)),
            Err(fault) => Err(self.fault(fault, token.span)),
        }
    }

    pub(super) fn address(&mut self) -> Parsed<Address> {
        let token = self.peek();
        if self.is_word("host") {
            return Err(self.no_host());
        }
        if token.kind != Kind::Word || literal::is_name(token.text) {
            self.expected("an address");
            return Err(Reported);
        }
        self.next();
        match literal::address(token.text) {
            Ok(addr) => Ok(Address { addr, span: token.span }),
            Err(fault) => Err(self.fault(fault, token.span)),
        }
    }

    /// `FROM -> TO`
    pub(super) fn pair(&mut self) -> Parsed<Pair<'a>> {
        let from = self.name("the zone or vm where flows begin")?;
        if self.peek().kind != Kind::Arrow {
            self.expected("`->`").help("a direction is written `clients -> uplink`");
            return Err(Reported);
        }
        self.next();
        Ok(Pair { from, to: self.name("the zone or vm where flows go")? })
    }

    fn policy(&mut self) -> Parsed<Block<'a>> {
        self.next();
        let pair = self.pair()?;
        let (rules, close, broken) = self.rules()?;
        Ok(Block { pair, rules, broken, close })
    }

    fn group(&mut self) -> Parsed<Group<'a>> {
        self.next();
        let name = self.name("the name of the group")?;
        let (rules, ..) = self.rules()?;
        Ok(Group { name, rules })
    }

    /// `{ RULES }`: what was understood, the closing brace, and whether something was not.
    fn rules(&mut self) -> Parsed<(Vec<Rule<'a>>, Span, bool)> {
        let open = self.want('{')?;
        let (mut rules, mut broken) = (Vec::new(), false);
        loop {
            let (start, token) = (self.at, self.peek());
            match token.kind {
                Kind::Mark('}') => {
                    self.next();
                    return Ok((rules, token.span, broken));
                }
                Kind::Mark(';') => {
                    self.next();
                }
                Kind::End => break,
                Kind::Word if self.is_one_of(&DECLARATIONS) => break,
                Kind::Word | Kind::Arrow | Kind::Mark(_) => match self.rule() {
                    Ok(rule) => rules.push(rule),
                    Err(Reported) => {
                        broken = true;
                        self.skip_to_rule(start);
                    }
                },
            }
        }
        self.unexpected("`}` or a rule").see(open, "this block is not closed");
        Ok((rules, open, true))
    }

    fn redirect(&mut self) -> Parsed<Redirect> {
        let start = self.next().span;
        self.want_word("dns")?;
        let virtuals = self.comma_list(Self::address)?;
        self.want_word("to")?;
        let reals = self.comma_list(Self::address)?;
        Ok(Redirect { span: start.to(self.last_span()), virtuals, reals })
    }
}
