// @ts-check
// Projects: list and create them as an operator; origins, privacy, secrets, tokens and limits of one.
import { Refused, explain, request, requestJson, withJson } from "./api.js"
import { openDialog } from "./dialogs.js"
import { copyButton, h, labelled } from "./dom.js"
import { absolute, relative } from "./format.js"
import { newSecret } from "./jwt.js"
import { identity, isOperator } from "./session.js"
import { mintForm, signInDialog } from "./tokens.js"
import { deleteDialog } from "./write.js"

/** Secrets that were made in this page, by project: they are shown once, and can sign tokens until the page ends.
 * @type {Map<string, string>} */
const madeHere = new Map()

/** @typedef {{name: string, created: string, public: boolean, origins: string[], secrets: {id: string, created: string}[], limits: Record<string, number | null>}} Project */

/** @param {{isOpen: boolean, go: (path: string) => void, onChanged: () => void}} wanted */
export async function projectsPage({ isOpen, go, onChanged }) {
  const who = identity()
  if (!isOperator(who)) {
    if (who?.claims?.scope === "manage" && !isOpen) return go(`#/projects/${who.claims.sub}`)
    return isOpen ? howToClose() : h("div", { class: "card" }, h("h1", null, "Projects"), h("p", null, "Projects are listed and created with an operator's token, and one is changed with a token of its own that has the scope manage."), h("div", { class: "actions" }, h("button", { type: "button", class: "primary", onclick: () => signInDialog() }, "Use a token")))
  }
  const { projects, next } = await requestJson("v1/projects?limit=1000")
  const rows = projects.map((/** @type {Project} */ one) => h("tr", null, h("td", null, h("a", { href: `#/projects/${one.name}` }, one.name)), h("td", null, one.public ? "public" : "private"), h("td", null, one.origins.length ? one.origins.join(", ") : "–"), h("td", { title: absolute(one.created) }, relative(one.created))))
  const create = h("button", { type: "button", class: "primary", onclick: () => createDialog({ isOpen, go, onChanged }) }, "New project")
  return h("div", null,
    h("div", { class: "page-head" }, h("h1", null, "Projects"), create),
    isOpen && h("p", { class: "note" }, "This server is open. Its first project closes it: from then on every request needs a token."),
    rows.length
      ? h("div", { class: "card" }, h("table", null, h("caption", { class: "unseen" }, "Projects"), h("thead", null, h("tr", null, ...["Name", "Privacy", "Origins", "Created"].map((one) => h("th", { scope: "col" }, one)))), h("tbody", null, ...rows)), next && h("p", { class: "quiet" }, "There are more than a thousand; the command fluvial project list has all."))
      : h("p", { class: "empty" }, "No projects yet."))
}

function howToClose() {
  return h("div", { class: "card prose" }, h("h1", null, "No projects yet"),
    h("p", null, "This server is open: everyone who reaches its port may read and write every stream, without a token. The first project closes it. To create one, you need the right to write to the server's data, or an operator's token."),
    h("h2", null, "On the server's machine"), h("pre", { class: "snippet" }, h("code", null, "fluvial project create NAME --data-dir FOLDER")),
    h("p", { class: "hint" }, "It says how many streams would be cut off, and how the project can have them. It prints the project's secret, which signs its tokens."),
    h("h2", null, "Here, as an operator"), h("p", null, "When the server runs with ", h("code", null, "--operator-secret-file"), ", an operator's token lets you create projects on this page."),
    h("div", { class: "actions" }, h("button", { type: "button", onclick: () => signInDialog() }, "Use an operator's token")))
}

/** @param {{isOpen: boolean, go: (path: string) => void, onChanged: () => void}} wanted */
function createDialog({ isOpen, go, onChanged }) {
  const name = h("input", { type: "text", required: true, pattern: "[a-z0-9][a-z0-9_\\-]{0,63}", title: "Small letters, digits, - and _", autocomplete: "off", spellcheck: "false" })
  const origins = h("textarea", { rows: 2, spellcheck: "false", placeholder: "https://app.example" })
  const cutOff = h("input", { type: "checkbox", id: "cut-off" })
  const warning = h("div", { class: "check", hidden: true }, cutOff, h("label", { for: "cut-off" }, "Create it all the same"))
  openDialog({
    title: isOpen ? "The first project" : "New project",
    content: [
      isOpen ? h("p", { class: "note" }, "It closes the server: streams below its name are its own, and all others are out of reach.") : "",
      labelled("Name", name, "Its streams' paths begin with it."), labelled("Origins", origins, "One a line: those whose pages may use its streams."), warning,
    ],
    action: "Create",
    submit: async () => {
      const secret = newSecret()
      try {
        await request("v1/projects", withJson("POST", { name: name.value, secret, origins: lines(origins.value), cutOff: cutOff.checked }))
      } catch (error) {
        if (error instanceof Refused && error.code === "streams_cut_off") warning.hidden = false
        throw error
      }
      madeHere.set(name.value, secret)
      onChanged()
      go(`#/projects/${name.value}`)
    },
  })
}

/** @param {string} text */
const lines = (text) => text.split(/[\s,]+/).filter(Boolean)

/** @param {string} name @param {{go: (path: string) => void, onChanged: () => void}} wanted */
export async function projectPage(name, { go, onChanged }) {
  const path = `v1/projects/${encodeURIComponent(name)}`
  const element = h("div")
  /** @param {Project} project */
  function draw(project) {
    const secret = madeHere.get(name)
    element.replaceChildren(
      h("div", { class: "page-head" }, h("h1", null, project.name), h("div", { class: "actions" }, isOperator(identity()) && h("button", { type: "button", class: "danger", onclick: remove }, "Delete"))),
      h("p", { class: "badges" }, h("span", { class: "badge" }, project.public ? "public" : "private"), h("span", { class: "badge" }, `created ${relative(project.created)}`)),
      secret ? secretCard(secret) : "",
      h("div", { class: "columns even" },
        h("div", { class: "column" }, card("Tokens", mintForm({ project: name, secret: secret ?? "" })), secretsCard(project)),
        h("div", { class: "column" }, rulesCard(project), limitsCard(project))))
  }
  const reload = async () => draw(await requestJson(path))
  const change = async (/** @type {string} */ what, /** @type {unknown} */ body) => draw(await requestJson(`${path}/${what}`, withJson("PUT", body)))

  const remove = () => deleteDialog({
    what: "project", name, isIn: "Only a project without streams can be deleted.",
    remove: async () => {
      await request(path, { method: "DELETE" })
      onChanged()
      go("#/projects")
    },
  })

  /** @param {string} secret */
  const secretCard = (secret) => h("section", { class: "card once", "aria-label": "Secret" }, h("h2", null, "Its secret, shown this once"),
    h("p", null, "It signs tokens: keep it where your servers read it from. No page and no command shows it again."),
    h("pre", { class: "token", tabindex: "0", "aria-label": "Secret" }, h("code", null, secret)),
    h("div", { class: "actions" }, copyButton(() => secret, "Copy", "the secret"), h("button", { type: "button", onclick: () => { madeHere.delete(name); reload() } }, "I have kept it")))

  /** @param {Project} project */
  function secretsCard(project) {
    const rows = project.secrets.map((one, index) => h("tr", null, h("td", null, h("code", null, one.id), index === 0 && project.secrets.length > 1 ? " signs" : ""), h("td", { title: absolute(one.created) }, relative(one.created)), h("td", { class: "num" }, project.secrets.length > 1 && h("button", { type: "button", class: "small danger", "aria-label": `Remove the secret ${one.id}`, onclick: () => removeSecret(one.id) }, "Remove"))))
    const add = h("button", { type: "button", onclick: () => openDialog({ title: "Add a secret", content: [h("p", null, "A new secret is made, and shown once. It signs from then on; tokens of the others stay valid until you remove these.")], action: "Add", submit: async () => {
      const secret = newSecret()
      await request(`${path}/secrets`, withJson("POST", { secret }))
      madeHere.set(name, secret)
      await reload()
    } }) }, "Add a secret")
    return card("Secrets", h("table", null, h("thead", null, h("tr", null, h("th", { scope: "col" }, "Id"), h("th", { scope: "col" }, "Created"), h("th", { scope: "col" }, h("span", { class: "unseen" }, "Action")))), h("tbody", null, ...rows)), h("div", { class: "actions" }, add))
  }

  /** @param {string} id */
  const removeSecret = (id) => deleteDialog({ what: "secret", name: id, isIn: "Tokens that it has signed become invalid at once.", remove: async () => {
    await request(`${path}/secrets/${id}`, { method: "DELETE" })
    await reload()
  } })

  /** @param {Project} project */
  function rulesCard(project) {
    const origins = h("textarea", { rows: 3, spellcheck: "false", value: project.origins.join("\n"), placeholder: "https://app.example" })
    const isPublic = h("input", { type: "checkbox", id: "project-public", checked: project.public })
    return card("Browsers and privacy",
      saving("Save the origins", [labelled("Origins", origins, "One a line: those whose pages may use the streams. * is all.")], () => change("origins", { origins: lines(origins.value) })),
      saving("Save the privacy", [h("div", { class: "check" }, isPublic, h("label", { for: "project-public" }, "Everybody may read its streams, without a token"))], () => change("privacy", { public: isPublic.checked })))
  }

  /** @param {Project} project */
  function limitsCard(project) {
    const kinds = [["requestsPerSecond", "Requests per second"], ["liveReads", "Live reads"], ["bodyBytes", "Bytes of a body"], ["bytesPerDay", "Bytes per day"]]
    if (!isOperator(identity())) return card("Limits", h("dl", { class: "facts" }, ...kinds.map(([key, text]) => h("div", null, h("dt", null, text), h("dd", null, project.limits[key]?.toLocaleString("en") ?? "the server's")))), h("p", { class: "hint" }, "An operator sets them."))
    const inputs = kinds.map(([key, text]) => /** @type {const} */ ([key, text, h("input", { type: "number", min: 1, value: project.limits[key] ?? "", placeholder: "the server's" })]))
    return card("Limits", saving("Save the limits", [h("div", { class: "pair" }, ...inputs.map(([, text, input]) => labelled(text, input)))], () => change("limits", Object.fromEntries(inputs.map(([key, , input]) => [key, input.value ? Number(input.value) : null])))))
  }

  await reload()
  return element
}

/** @param {string} title @param {...Node} content */
const card = (title, ...content) => h("section", { class: "card", "aria-label": title }, h("h2", null, title), ...content)

/** A form that saves, and says so. @param {string} label @param {Node[]} content @param {() => Promise<unknown>} save */
function saving(label, content, save) {
  const outcome = h("span", { class: "outcome", role: "status" })
  const form = h("form", null, ...content, h("div", { class: "actions" }, outcome, h("button", { type: "submit" }, label)))
  form.addEventListener("submit", async (/** @type {Event} */ event) => {
    event.preventDefault()
    outcome.className = "outcome"
    try {
      await save()
    } catch (error) {
      outcome.className = "outcome failure"
      outcome.textContent = explain(error)
    }
  })
  return form
}

