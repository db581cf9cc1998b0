// How the page looks: colours that differ in lightness too, for light and dark; one column on a phone.
export const STYLE = `
:root{color-scheme:light dark;--back:#fff;--card:#f6f8fa;--text:#1b1f24;--soft:#57606a;--grid:#d0d7de;
--blocking:#57606a;--fixed:#b35900;--classic:#8250df;--handler:#0f766e;--cost:#0550ae}
@media(prefers-color-scheme:dark){:root{--back:#0d1117;--card:#161b22;--text:#e6edf3;--soft:#9da7b3;--grid:#30363d;
--blocking:#9da7b3;--fixed:#f0883e;--classic:#d2a8ff;--handler:#39d0b8;--cost:#6cb6ff}}
*{box-sizing:border-box}
body{margin:0 auto;padding:12px;max-width:1500px;background:var(--back);color:var(--text);font:16px/1.45 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.6rem;margin:.4em 0}h2{font-size:1.3rem;margin:1.6em 0 .3em;border-bottom:1px solid var(--grid)}h3{font-size:1.1rem;margin:1.2em 0 .2em}
p{margin:.3em 0}footer,.note{color:var(--soft)}footer{margin-top:2em;border-top:1px solid var(--grid)}
.legend{display:flex;flex-wrap:wrap;gap:4px 16px;margin:.6em 0;padding:0;list-style:none}
.legend li{display:flex;align-items:center;gap:6px}.line{width:22px;height:4px;border-radius:2px;background:currentColor}
.swatch{width:14px;height:14px;fill:var(--soft)}
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,330px),1fr));gap:10px;margin:.6em 0}
figure{margin:0;padding:4px;background:var(--card);border-radius:6px}figure svg{display:block;width:100%;height:auto}
svg text{font:12px system-ui,sans-serif;fill:var(--soft)}svg .title{font-weight:600;font-size:13px;fill:var(--text)}
.middle{text-anchor:middle}.end{text-anchor:end}
.grid{stroke:var(--grid);fill:none}.curve{fill:none;stroke:currentColor;stroke-width:2.2;stroke-linejoin:round}
.whisker{fill:none;stroke:currentColor;stroke-width:1.2;opacity:.6}.mark{fill:currentColor;stroke:var(--card)}
.blocking{color:var(--blocking)}.fixed{color:var(--fixed)}.classic{color:var(--classic)}.handler{color:var(--handler)}.cost{color:var(--cost)}
.scroll{overflow-x:auto}summary{cursor:pointer;color:var(--soft)}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums;white-space:nowrap}
th,td{padding:2px 10px 2px 0;text-align:right;border-bottom:1px solid var(--grid)}th:nth-child(-n+2){text-align:left}
`
