// Checks that every exported name of the package has a description and an @example, and every public member a
// description. The examples themselves are run by readme-snippets.mjs.
import { join, relative } from 'node:path'
import ts from 'typescript'
import { fail, root, say, seconds } from './step.mjs'

const since = performance.now()
const entries = ['ts/index.ts', 'ts/fd.ts'].map((name) => join(root, name))
const { config } = ts.readConfigFile(join(root, 'tsconfig.json'), ts.sys.readFile)
const { options } = ts.parseJsonConfigFileContent(config, ts.sys, root)
const program = ts.createProgram(entries, options)
const checker = program.getTypeChecker()
const problems = new Set()
const seen = new Set()

for (const entry of entries) {
  const source = program.getSourceFile(entry)
  const module = source && checker.getSymbolAtLocation(source)
  if (!module) fail(`API docs: ${relative(root, entry)} exports nothing; export the public names there`)
  for (const exported of checker.getExportsOfModule(module)) {
    const symbol = exported.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(exported) : exported
    if (!seen.has(symbol)) check(symbol)
    seen.add(symbol)
  }
}

for (const problem of problems) process.stderr.write(`${problem}\n`)
const summary = `API docs: ${seen.size} exported names`
if (problems.size > 0) fail(`${summary}, ${problems.size} problems, ${seconds(since)}`)
say(`${summary} have a description and an example, ${seconds(since)}`)

function check(symbol) {
  if (!described(symbol)) complain(symbol, symbol.name, 'has no description')
  if (!symbol.getJsDocTags(checker).some(({ name }) => name === 'example')) complain(symbol, symbol.name, 'has no @example')
  for (const members of [symbol.members, symbol.flags & ts.SymbolFlags.Class ? symbol.exports : undefined]) {
    for (const member of members?.values() ?? []) {
      const [declaration] = member.declarations ?? []
      if (!declaration || member.name === 'prototype' || ts.isTypeParameterDeclaration(declaration)) continue
      if (ts.isConstructorDeclaration(declaration) || ts.isPrivateIdentifier(declaration.name ?? declaration)) continue
      if (ts.getCombinedModifierFlags(declaration) & ts.ModifierFlags.Private) continue
      if (ts.getJSDocTags(declaration).some(({ tagName }) => tagName.text === 'internal')) continue
      if (!described(member)) complain(member, `${symbol.name}.${memberName(declaration, member)}`, 'has no description')
    }
  }
}

function described(symbol) {
  return ts.displayPartsToString(symbol.getDocumentationComment(checker)).trim() !== ''
}

function memberName(declaration, member) {
  return declaration.name?.getText() ?? member.name
}

function complain(symbol, name, text) {
  const [declaration] = symbol.declarations ?? []
  const source = declaration?.getSourceFile()
  const line = source ? source.getLineAndCharacterOfPosition(declaration.getStart()).line + 1 : 0
  problems.add(`${source ? relative(root, source.fileName) : '?'}:${line}: ${name} ${text}`)
}
