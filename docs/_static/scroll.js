// What is wider than its place is scrolled with the keys too, once it can have the focus.
const wide = () => {
  for (const each of document.querySelectorAll("pre, .table-wrapper, div.math")) {
    if (each.scrollWidth > each.clientWidth) each.tabIndex = 0;
    else each.removeAttribute("tabindex");
  }
};
addEventListener("load", wide);
addEventListener("resize", wide);
