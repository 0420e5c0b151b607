"""Write the documents of the four small tasks: sums, capitals, opposites, past tenses.

    python lm-evaluation-harness/small/make_documents.py

A language model of 100 million parameters does them well above guessing, in a few tokens a
document, so that they can show on a laptop what moved. The same seed writes the same files.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent.parent))

from neurosurgery.common.files import write_atomically  # noqa: E402

SEED = 2026
OPTIONS = 4
SUMS = 150

CAPITALS = dict(
    pair.split(":")
    for pair in (
        "Albania:Tirana,Algeria:Algiers,Argentina:Buenos Aires,Armenia:Yerevan,Australia:Canberra,"
        "Austria:Vienna,Azerbaijan:Baku,Bangladesh:Dhaka,Belarus:Minsk,Belgium:Brussels,"
        "Bolivia:Sucre,Brazil:Brasilia,Bulgaria:Sofia,Cambodia:Phnom Penh,Canada:Ottawa,"
        "Chile:Santiago,China:Beijing,Colombia:Bogota,Croatia:Zagreb,Cuba:Havana,Cyprus:Nicosia,"
        "Denmark:Copenhagen,Ecuador:Quito,Egypt:Cairo,Estonia:Tallinn,Ethiopia:Addis Ababa,"
        "Finland:Helsinki,France:Paris,Georgia:Tbilisi,Germany:Berlin,Ghana:Accra,Greece:Athens,"
        "Haiti:Port-au-Prince,Honduras:Tegucigalpa,Hungary:Budapest,Iceland:Reykjavik,"
        "India:New Delhi,Indonesia:Jakarta,Iran:Tehran,Iraq:Baghdad,Ireland:Dublin,Italy:Rome,"
        "Jamaica:Kingston,Japan:Tokyo,Jordan:Amman,Kenya:Nairobi,Laos:Vientiane,Latvia:Riga,"
        "Lebanon:Beirut,Libya:Tripoli,Lithuania:Vilnius,Malaysia:Kuala Lumpur,Malta:Valletta,"
        "Mexico:Mexico City,Mongolia:Ulaanbaatar,Morocco:Rabat,Nepal:Kathmandu,"
        "the Netherlands:Amsterdam,New Zealand:Wellington,Nicaragua:Managua,Nigeria:Abuja,"
        "Norway:Oslo,Pakistan:Islamabad,Paraguay:Asuncion,Peru:Lima,the Philippines:Manila,"
        "Poland:Warsaw,Portugal:Lisbon,Romania:Bucharest,Russia:Moscow,Saudi Arabia:Riyadh,"
        "Senegal:Dakar,Serbia:Belgrade,Slovakia:Bratislava,Slovenia:Ljubljana,Somalia:Mogadishu,"
        "South Korea:Seoul,Spain:Madrid,Sudan:Khartoum,Sweden:Stockholm,Switzerland:Bern,"
        "Syria:Damascus,Thailand:Bangkok,Tunisia:Tunis,Turkey:Ankara,Uganda:Kampala,Ukraine:Kyiv,"
        "Uruguay:Montevideo,Venezuela:Caracas,Vietnam:Hanoi,Zambia:Lusaka,Zimbabwe:Harare"
    ).split(",")
)

OPPOSITES = dict(
    pair.split(":")
    for pair in (
        "hot:cold,big:small,tall:short,light:dark,early:late,rich:poor,young:old,fast:slow,"
        "hard:soft,high:low,wet:dry,full:empty,open:closed,strong:weak,thick:thin,wide:narrow,"
        "deep:shallow,clean:dirty,loud:quiet,sweet:bitter,happy:sad,brave:cowardly,calm:nervous,"
        "cheap:expensive,rough:smooth,sharp:blunt,heavy:weightless,straight:crooked,true:false,"
        "right:wrong,safe:dangerous,simple:complicated,public:private,guilty:innocent,"
        "polite:rude,generous:stingy,lazy:hardworking,modern:ancient,rare:common,tight:loose,"
        "up:down,left:right,inside:outside,above:below,before:after,near:far,first:last,"
        "day:night,summer:winter,north:south,east:west,win:lose,buy:sell,push:pull,start:finish,"
        "give:take,laugh:cry,arrive:leave,accept:refuse,attack:defend,build:destroy,love:hate,"
        "increase:decrease,remember:forget,float:sink,join:separate,lend:borrow,ask:answer,"
        "success:failure,friend:enemy,war:peace,heaven:hell,life:death,front:back,top:bottom,"
        "victory:defeat,question:answer,teacher:student,husband:wife,king:queen,brother:sister,"
        "uncle:aunt,maximum:minimum,positive:negative,optimist:pessimist,entrance:exit,"
        "artificial:natural,visible:invisible,possible:impossible,legal:illegal,honest:dishonest,"
        "patient:impatient,mature:immature,careful:careless,useful:useless,hopeful:hopeless,"
        "import:export,internal:external,major:minor,senior:junior,temporary:permanent"
    ).split(",")
)

PAST_TENSES = dict(
    pair.split(":")
    for pair in (
        "go:went,see:saw,take:took,give:gave,come:came,know:knew,think:thought,find:found,"
        "tell:told,become:became,leave:left,feel:felt,bring:brought,begin:began,keep:kept,"
        "hold:held,write:wrote,stand:stood,hear:heard,mean:meant,meet:met,run:ran,pay:paid,"
        "sit:sat,speak:spoke,lead:led,grow:grew,lose:lost,fall:fell,send:sent,build:built,"
        "understand:understood,draw:drew,break:broke,spend:spent,rise:rose,drive:drove,buy:bought,"
        "wear:wore,choose:chose,seek:sought,throw:threw,catch:caught,deal:dealt,win:won,"
        "forget:forgot,sell:sold,fight:fought,teach:taught,eat:ate,sing:sang,strike:struck,"
        "shake:shook,ride:rode,feed:fed,shoot:shot,drink:drank,hide:hid,fly:flew,"
        "swim:swam,steal:stole,swing:swung,bite:bit,sleep:slept,sweep:swept,"
        "bend:bent,blow:blew,freeze:froze,tear:tore,swear:swore,ring:rang,"
        "sink:sank,spring:sprang,stick:stuck,sting:stung,dig:dug,spin:spun,"
        "forgive:forgave,walk:walked,play:played,open:opened,jump:jumped,carry:carried,"
        "study:studied,stop:stopped,plan:planned,smile:smiled,arrive:arrived,watch:watched,"
        "listen:listened,answer:answered,travel:travelled,enjoy:enjoyed,worry:worried,cry:cried,"
        "drop:dropped,hope:hoped,paint:painted,help:helped,clean:cleaned,"
        "cook:cooked,laugh:laughed,climb:climbed,repair:repaired,visit:visited,count:counted"
    ).split(",")
)


def sums(generator: random.Random) -> list[dict[str, object]]:
    """Sums of two numbers below 100, two of three with a second number below 10."""
    shots = "12 + 30 = 42\n25 + 4 = 29\n"
    pairs = [(a, b) for a in range(10, 100) for b in range(2, 100) if a + b < 100]
    small = generator.sample([pair for pair in pairs if pair[1] < 10], SUMS * 2 // 3)
    large = generator.sample([pair for pair in pairs if pair[1] >= 10], SUMS // 3)
    drawn = small + large
    generator.shuffle(drawn)
    return [{"prompt": f"{shots}{a} + {b} =", "answer": str(a + b)} for a, b in drawn]


def choices(
    pairs: dict[str, str],
    prompt: Callable[[str], str],
    wrong: Callable[[str], Sequence[str]],
    generator: random.Random,
) -> list[dict[str, object]]:
    """One document a pair: two solved shots, the question, and options in a drawn order."""
    documents = []
    names = list(pairs)
    shots = "".join(f"{prompt(name)} {pairs[name]}\n" for name in names[:2])
    for name in names[2:]:
        options = [pairs[name], *generator.sample(sorted(set(wrong(name))), OPTIONS - 1)]
        generator.shuffle(options)
        gold = options.index(pairs[name])
        documents.append({"prompt": shots + prompt(name), "options": options, "gold": gold})
    return documents


def wrong_past_tenses(verb: str) -> list[str]:
    """Forms that a learner might write: regular endings and a vowel's change."""
    right = PAST_TENSES[verb]
    stem = verb.removesuffix("e")
    forms = {f"{verb}ed", f"{stem}ened", f"{stem}en", f"{stem}ought", f"{stem}t", f"{right}ed"}
    return sorted(forms - {right})


def documents() -> dict[str, list[dict[str, object]]]:
    """All documents, by task."""
    generator = random.Random(SEED)

    def others(pairs: dict[str, str]) -> Callable[[str], list[str]]:
        return lambda name: [value for value in pairs.values() if value != pairs[name]]

    return {
        "small_sums": sums(generator),
        "small_capitals": choices(
            CAPITALS, lambda name: f"The capital of {name} is", others(CAPITALS), generator
        ),
        "small_opposites": choices(
            OPPOSITES, lambda name: f"The opposite of {name} is", others(OPPOSITES), generator
        ),
        "small_past_tense": choices(
            PAST_TENSES,
            lambda name: f"Today I {name}. Yesterday I",
            wrong_past_tenses,
            generator,
        ),
    }


if __name__ == "__main__":
    for name, found in documents().items():
        lines = "".join(json.dumps(document) + "\n" for document in found)
        write_atomically(FOLDER / f"{name}.jsonl", lines.encode())
        print(f"{name}.jsonl: {len(found)} documents")
