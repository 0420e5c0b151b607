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
MORE_SUMS = 858

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
        "Uruguay:Montevideo,Venezuela:Caracas,Vietnam:Hanoi,Zambia:Lusaka,Zimbabwe:Harare,"
        "Afghanistan:Kabul,Angola:Luanda,the Bahamas:Nassau,Bahrain:Manama,Barbados:Bridgetown,"
        "Belize:Belmopan,Bhutan:Thimphu,Botswana:Gaborone,Brunei:Bandar Seri Begawan,"
        "Burundi:Gitega,Cameroon:Yaounde,Chad:N'Djamena,Costa Rica:San Jose,"
        "the Czech Republic:Prague,the Dominican Republic:Santo Domingo,El Salvador:San Salvador,"
        "Eritrea:Asmara,Fiji:Suva,Gabon:Libreville,the Gambia:Banjul,Guatemala:Guatemala City,"
        "Guinea:Conakry,Guyana:Georgetown,Israel:Jerusalem,Ivory Coast:Yamoussoukro,"
        "Kazakhstan:Astana,Kuwait:Kuwait City,Kyrgyzstan:Bishkek,Lesotho:Maseru,Liberia:Monrovia,"
        "Luxembourg:Luxembourg City,Madagascar:Antananarivo,Malawi:Lilongwe,the Maldives:Male,"
        "Mali:Bamako,Mauritania:Nouakchott,Mauritius:Port Louis,Moldova:Chisinau,"
        "Montenegro:Podgorica,Mozambique:Maputo,Myanmar:Naypyidaw,Namibia:Windhoek,Niger:Niamey,"
        "North Korea:Pyongyang,North Macedonia:Skopje,Oman:Muscat,Panama:Panama City,"
        "Papua New Guinea:Port Moresby,Qatar:Doha,Rwanda:Kigali,Samoa:Apia,Sierra Leone:Freetown,"
        "Sri Lanka:Sri Jayawardenepura Kotte,Suriname:Paramaribo,Taiwan:Taipei,Tajikistan:Dushanbe,"
        "Tanzania:Dodoma,Togo:Lome,Tonga:Nuku'alofa,Trinidad and Tobago:Port of Spain,"
        "Turkmenistan:Ashgabat,the United Arab Emirates:Abu Dhabi,the United Kingdom:London,"
        "the United States:Washington,Uzbekistan:Tashkent,Vanuatu:Port Vila,Yemen:Sanaa,"
        "Burkina Faso:Ouagadougou,Bosnia and Herzegovina:Sarajevo,Benin:Porto-Novo"
    ).split(",")
)

OPPOSITES = dict(
    pair.split(":")
    for pair in (
        "hot:cold,big:small,tall:short,light:dark,early:late,rich:poor,young:old,fast:slow,"
        "hard:soft,high:low,wet:dry,full:empty,open:closed,strong:weak,thick:thin,wide:narrow,"
        "deep:shallow,clean:dirty,loud:quiet,sweet:bitter,happy:sad,brave:cowardly,calm:nervous,"
        "cheap:expensive,rough:smooth,sharp:blunt,heavy:weightless,straight:crooked,true:false,"
        "right:wrong,safe:dangerous,simple:complicated,public:private,guilty:innocent,polite:rude,"
        "generous:stingy,lazy:hardworking,modern:ancient,rare:common,tight:loose,up:down,"
        "left:right,inside:outside,above:below,before:after,near:far,first:last,day:night,"
        "summer:winter,north:south,east:west,win:lose,buy:sell,push:pull,start:finish,give:take,"
        "laugh:cry,arrive:leave,accept:refuse,attack:defend,build:destroy,love:hate,"
        "increase:decrease,remember:forget,float:sink,join:separate,lend:borrow,ask:answer,"
        "success:failure,friend:enemy,war:peace,heaven:hell,life:death,front:back,top:bottom,"
        "victory:defeat,question:answer,teacher:student,husband:wife,king:queen,brother:sister,"
        "uncle:aunt,maximum:minimum,positive:negative,optimist:pessimist,entrance:exit,"
        "artificial:natural,visible:invisible,possible:impossible,legal:illegal,honest:dishonest,"
        "patient:impatient,mature:immature,careful:careless,useful:useless,hopeful:hopeless,"
        "import:export,internal:external,major:minor,senior:junior,temporary:permanent,male:female,"
        "man:woman,boy:girl,father:mother,son:daughter,nephew:niece,winner:loser,buyer:seller,"
        "leader:follower,host:guest,employer:employee,ally:opponent,always:never,"
        "everything:nothing,everybody:nobody,many:few,more:less,most:least,plus:minus,add:subtract,"
        "multiply:divide,double:half,odd:even,long:brief,beautiful:ugly,clever:stupid,wise:foolish,"
        "healthy:sick,fresh:stale,raw:cooked,ripe:unripe,alive:dead,awake:asleep,busy:idle,"
        "absent:present,active:passive,ascend:descend,appear:disappear,agree:disagree,allow:forbid,"
        "begin:end,borrow:return,bright:dim,catch:miss,create:erase,cruel:kind,curse:bless,"
        "dawn:dusk,difficult:easy,dull:exciting,encourage:discourage,enter:leave,expand:shrink,"
        "fail:succeed,famous:unknown,fat:skinny,fiction:fact,foreign:domestic,forward:backward,"
        "freedom:slavery,frequent:seldom,gain:loss,giant:dwarf,gather:scatter,gentle:harsh,"
        "good:evil,grow:decay,guilt:innocence,harmful:harmless,horizontal:vertical,humble:proud,"
        "include:exclude,inhale:exhale,initial:final,lock:unlock,lower:raise,loyal:treacherous,"
        "mountain:valley,noisy:silent,obey:disobey,obvious:hidden,oral:written,ordinary:unusual,"
        "past:future,plentiful:scarce,poverty:wealth,praise:blame,pretty:plain,private:shared,"
        "profit:deficit,quick:sluggish,reward:punishment,rural:urban,single:married,sleepy:alert,"
        "solid:liquid,sour:sugary,spend:save,stand:sit,tame:wild,tiny:huge,transparent:opaque,"
        "truth:lie,unite:split,upstairs:downstairs,upper:underneath,vacant:occupied,villain:hero,"
        "voluntary:compulsory,warm:cool,white:black,whole:part,with:without,work:rest,yes:no"
    ).split(",")
)

PAST_TENSES = dict(
    pair.split(":")
    for pair in (
        "go:went,see:saw,take:took,give:gave,come:came,know:knew,think:thought,find:found,"
        "tell:told,become:became,leave:left,feel:felt,bring:brought,begin:began,keep:kept,"
        "hold:held,write:wrote,stand:stood,hear:heard,mean:meant,meet:met,run:ran,pay:paid,sit:sat,"
        "speak:spoke,lead:led,grow:grew,lose:lost,fall:fell,send:sent,build:built,"
        "understand:understood,draw:drew,break:broke,spend:spent,rise:rose,drive:drove,buy:bought,"
        "wear:wore,choose:chose,seek:sought,throw:threw,catch:caught,deal:dealt,win:won,"
        "forget:forgot,sell:sold,fight:fought,teach:taught,eat:ate,sing:sang,strike:struck,"
        "shake:shook,ride:rode,feed:fed,shoot:shot,drink:drank,hide:hid,fly:flew,swim:swam,"
        "steal:stole,swing:swung,bite:bit,sleep:slept,sweep:swept,bend:bent,blow:blew,freeze:froze,"
        "tear:tore,swear:swore,ring:rang,sink:sank,spring:sprang,stick:stuck,sting:stung,dig:dug,"
        "spin:spun,forgive:forgave,walk:walked,play:played,open:opened,jump:jumped,carry:carried,"
        "study:studied,stop:stopped,plan:planned,smile:smiled,arrive:arrived,watch:watched,"
        "listen:listened,answer:answered,travel:travelled,enjoy:enjoyed,worry:worried,cry:cried,"
        "drop:dropped,hope:hoped,paint:painted,help:helped,clean:cleaned,cook:cooked,laugh:laughed,"
        "climb:climbed,repair:repaired,visit:visited,count:counted,awake:awoke,arise:arose,"
        "bear:bore,bind:bound,bleed:bled,breed:bred,cling:clung,creep:crept,fling:flung,"
        "foresee:foresaw,grind:ground,kneel:knelt,lend:lent,lie:lay,mistake:mistook,"
        "overcome:overcame,oversleep:overslept,overtake:overtook,rebuild:rebuilt,rewrite:rewrote,"
        "shine:shone,shrink:shrank,slide:slid,sling:slung,stride:strode,strive:strove,"
        "undertake:undertook,undo:undid,weave:wove,weep:wept,wind:wound,withdraw:withdrew,"
        "withstand:withstood,wring:wrung,behold:beheld,flee:fled,forbid:forbade,light:lit,"
        "make:made,say:said,get:got,do:did,tread:trod,slay:slew,add:added,ask:asked,bake:baked,"
        "call:called,chew:chewed,cough:coughed,dance:danced,earn:earned,fail:failed,fill:filled,"
        "fix:fixed,float:floated,follow:followed,gain:gained,guess:guessed,hand:handed,hunt:hunted,"
        "iron:ironed,join:joined,kick:kicked,kill:killed,kiss:kissed,knock:knocked,land:landed,"
        "last:lasted,lift:lifted,link:linked,load:loaded,lock:locked,look:looked,mark:marked,"
        "melt:melted,miss:missed,need:needed,nod:nodded,order:ordered,pack:packed,park:parked,"
        "pass:passed,pick:picked,plant:planted,point:pointed,pour:poured,pray:prayed,press:pressed,"
        "print:printed,pull:pulled,push:pushed,rain:rained,reach:reached,rest:rested,roll:rolled,"
        "row:rowed,sail:sailed,search:searched,seem:seemed,shout:shouted,show:showed,sign:signed,"
        "ski:skied,sort:sorted,stay:stayed,talk:talked,test:tested,thank:thanked,touch:touched,"
        "train:trained,treat:treated,trust:trusted,turn:turned,twist:twisted,wait:waited,"
        "want:wanted,warm:warmed,wash:washed,water:watered,wink:winked,wish:wished,work:worked,"
        "yell:yelled,admire:admired,agree:agreed,allow:allowed,announce:announced,annoy:annoyed,"
        "appear:appeared,argue:argued,arrest:arrested,attack:attacked,attend:attended,"
        "avoid:avoided,bless:blessed,boil:boiled,borrow:borrowed,bounce:bounced,breathe:breathed,"
        "brush:brushed,burn:burned,calculate:calculated,cause:caused,challenge:challenged,"
        "change:changed,charge:charged,chase:chased,cheer:cheered,collect:collected,comb:combed,"
        "compare:compared,complain:complained,connect:connected,consider:considered,"
        "contain:contained,continue:continued,correct:corrected,crash:crashed,create:created,"
        "damage:damaged,decide:decided,decorate:decorated,deliver:delivered,depend:depended,"
        "describe:described,destroy:destroyed,develop:developed,disagree:disagreed,"
        "discover:discovered,divide:divided,doubt:doubted,drown:drowned,educate:educated,"
        "encourage:encouraged,escape:escaped,examine:examined,excuse:excused,exercise:exercised,"
        "expand:expanded,expect:expected,explain:explained,explode:exploded,extend:extended,"
        "fasten:fastened,fetch:fetched,finish:finished,flood:flooded,force:forced,form:formed,"
        "frighten:frightened,gather:gathered,greet:greeted,handle:handled,happen:happened,"
        "hate:hated,heal:healed,heat:heated,hurry:hurried,identify:identified,imagine:imagined,"
        "impress:impressed,improve:improved,include:included,increase:increased,inform:informed,"
        "injure:injured,instruct:instructed,invent:invented,invite:invited,judge:judged,"
        "knit:knitted,label:labeled,learn:learned,like:liked,live:lived,manage:managed,"
        "marry:married,matter:mattered,measure:measured,memorise:memorised,mention:mentioned,"
        "move:moved,murder:murdered,notice:noticed,obey:obeyed,object:objected,offer:offered,"
        "own:owned,pause:paused,perform:performed,permit:permitted,phone:phoned,place:placed,"
        "please:pleased,polish:polished,possess:possessed,practise:practised,predict:predicted,"
        "prefer:preferred,prepare:prepared,present:presented,preserve:preserved,pretend:pretended,"
        "prevent:prevented,produce:produced,promise:promised,protect:protected,provide:provided,"
        "punish:punished,question:questioned,receive:received,recognise:recognised,record:recorded,"
        "reduce:reduced,reflect:reflected,refuse:refused,regret:regretted,reject:rejected,"
        "relax:relaxed,release:released,rely:relied,remain:remained,remember:remembered,"
        "remind:reminded,remove:removed,repeat:repeated,replace:replaced,reply:replied,"
        "report:reported,rescue:rescued,return:returned,rhyme:rhymed,rinse:rinsed,risk:risked,"
        "ruin:ruined,save:saved,scare:scared,scratch:scratched,serve:served,share:shared,"
        "shiver:shivered,sigh:sighed,slip:slipped,snow:snowed,soak:soaked,solve:solved,"
        "spill:spilled,squeeze:squeezed,start:started,suffer:suffered,suggest:suggested,"
        "supply:supplied,support:supported,suppose:supposed,surprise:surprised,surround:surrounded,"
        "suspect:suspected,tease:teased,telephone:telephoned,tempt:tempted,terrify:terrified,"
        "tickle:tickled,tie:tied,trade:traded,trap:trapped,trick:tricked,trouble:troubled,"
        "tug:tugged,type:typed,undress:undressed,unite:united,unlock:unlocked,use:used,"
        "vanish:vanished,wander:wandered,waste:wasted,welcome:welcomed,whisper:whispered,"
        "whistle:whistled,wonder:wondered,wrap:wrapped,wreck:wrecked"
    ).split(",")
)


def sums(generator: random.Random) -> list[dict[str, object]]:
    """Sums of two numbers below 100, two of three with a second number below 10.

    The first `SUMS` are those that published numbers rest on; others follow them.
    """
    shots = ((12, 30), (25, 4))
    pairs = [(a, b) for a in range(10, 100) for b in range(2, 100) if a + b < 100]

    def draw(count: int, generator: random.Random) -> list[tuple[int, int]]:
        small = generator.sample([pair for pair in pairs if pair[1] < 10], count * 2 // 3)
        large = generator.sample([pair for pair in pairs if pair[1] >= 10], count // 3)
        drawn = small + large
        generator.shuffle(drawn)
        return drawn

    drawn = draw(SUMS, generator)
    pairs = sorted(set(pairs).difference(drawn, shots))
    drawn += draw(MORE_SUMS, random.Random(SEED))
    prompt = "".join(f"{a} + {b} = {a + b}\n" for a, b in shots)
    return [{"prompt": f"{prompt}{a} + {b} =", "answer": str(a + b)} for a, b in drawn]


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
